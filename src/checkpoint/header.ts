import { CheckpointError, nearest } from "../errors.ts";
import { byteSize, type DType } from "../tensor/index.ts";
import { headerDtypes, supportedDtypes } from "./dtype-names.ts";
import { Problems, quote } from "./problems.ts";
import {
  describe,
  isJsonObject,
  JsonSyntaxError,
  type JsonValue,
  type ParseOptions,
  parseStrictJson,
} from "./strict-json.ts";

/** The limit of the Rust crate, in bytes: a header is parsed whole, so a hostile one must not be huge. */
export const maxHeaderLength = 100_000_000;

/** Bytes of the header's length, at the beginning of the file. */
export const prefixLength = 8;

export const metadataKey = "__metadata__";

/** One tensor of a header; offsets count from `dataStart`. */
export type HeaderTensor = {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly start: number;
  readonly end: number;
};

/** `tensors` in the order of the file's bytes. */
export type Header = {
  readonly tensors: readonly HeaderTensor[];
  readonly metadata: Readonly<Record<string, string>>;
  /** Where the header ends, from the beginning of the file. */
  readonly dataStart: number;
};

const damaged = "The file is damaged or was written by a faulty program: download it or save it again.";

/**
 * The length of the header, from the first 8 bytes of a file of `size` bytes.
 * @throws CheckpointError if the file cannot hold such a header.
 */
export function parseHeaderLength(file: string, head: Uint8Array, size: number): number {
  if (head.length < prefixLength)
    throw new CheckpointError(
      `${file}: the file has ${size} bytes; a safetensors file has at least ${prefixLength}, the length of ` +
        "its header. The download or the save was interrupted: do it again.",
      { code: "header-too-small", details: { file, size } },
    );
  const view = new DataView(head.buffer, head.byteOffset, prefixLength);
  const length = view.getBigUint64(0, true);
  if (length > maxHeaderLength)
    throw new CheckpointError(
      `${file}: the first 8 bytes announce a header of ${length} bytes, more than the ${maxHeaderLength} that ` +
        "the format allows. This is not a safetensors file, or it is damaged: check the name, or download it again.",
      { code: "header-too-large", details: { file, length: String(length), limit: maxHeaderLength } },
    );
  if (prefixLength + Number(length) > size)
    throw new CheckpointError(
      `${file}: the first 8 bytes announce a header of ${length} bytes, but only ${size - prefixLength} follow ` +
        `(file of ${size} bytes). The file was cut short, or is not a safetensors file: download it again.`,
      { code: "invalid-header-length", details: { file, length: Number(length), size } },
    );
  return Number(length);
}

/**
 * Parses and validates the header of a safetensors file of `size` bytes: what the Rust crate checks, and
 * duplicate keys besides, because readers disagree about which of them counts.
 * @throws CheckpointError with every problem found.
 * Source: huggingface/safetensors, safetensors/src/tensor.rs, `read_metadata` and `Metadata::validate`.
 */
export function parseHeader(file: string, bytes: Uint8Array, size: number): Header {
  const problems = new Problems();
  const tensors: HeaderTensor[] = [];
  let metadata: Readonly<Record<string, string>> = {};
  const seen = new Set<string>();
  const isRepeated = (key: string): boolean => {
    const { size } = seen;
    if (size < seen.add(key).size) return false;
    addDuplicate(problems, `the key ${quote(key)}`, key);
    return true;
  };
  parseMembers(file, decodeUtf8(file, bytes), {
    onMember: (key, value) => {
      if (isRepeated(key)) return;
      if (key === metadataKey) metadata = parseMetadata(value, problems);
      else {
        const tensor = parseTensor(key, value, problems);
        if (tensor !== undefined) tensors.push(tensor);
      }
    },
    fastMember: (key, text, index) => {
      const plain = plainTensor(key, text, index);
      if (plain === undefined) return -1;
      if (!isRepeated(key)) tensors.push(plain.tensor);
      return plain.end;
    },
  });
  const isSorted = tensors.every((tensor, i) => i === 0 || tensors[i - 1]!.end <= tensor.start);
  if (!isSorted) tensors.sort((a, b) => a.start - b.start || a.end - b.end);
  const dataStart = prefixLength + bytes.length;
  // A tensor that could not be understood leaves a hole, which would only repeat the complaint.
  if (problems.count === 0) checkLayout(tensors, size - dataStart, problems);
  problems.throwIfAny({ file, code: "invalid-header", remedy: remedyFor(problems) });
  return { tensors, metadata, dataStart };
}

function remedyFor({ codes }: Problems): string {
  if (codes.has("unsupported-dtype"))
    return `Supported: ${supportedDtypes.join(", ")}. Save the model in one of these types.`;
  if (codes.has("unknown-dtype")) return `Known: ${supportedDtypes.join(", ")}. ${damaged}`;
  return damaged;
}

function decodeUtf8(file: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new CheckpointError(`${file}: the header is not valid UTF-8. ${damaged}`, {
      code: "invalid-header-utf8",
      details: { file },
      cause,
    });
  }
}

function parseMembers(file: string, text: string, options: ParseOptions): void {
  let root: JsonValue;
  try {
    root = parseStrictJson(text, options);
  } catch (cause) {
    if (!(cause instanceof JsonSyntaxError)) throw cause;
    const near = text.slice(Math.max(0, cause.index - 20), cause.index + 20);
    throw new CheckpointError(
      `${file}: the header is not valid JSON at character ${cause.index} of ${text.length}: ${cause.message} ` +
        `(near ${JSON.stringify(near)}). ${damaged}`,
      { code: "invalid-header-json", details: { file, position: cause.index }, cause },
    );
  }
  if (isJsonObject(root)) return;
  throw new CheckpointError(`${file}: the header is ${describe(root)}, not a JSON object. ${damaged}`, {
    code: "invalid-header-json",
    details: { file },
  });
}

const addDuplicate = (problems: Problems, what: string, tensor: string) =>
  problems.add({ code: "duplicate-key", tensor, message: `${what} occurs more than once` });

function parseMetadata(value: JsonValue, problems: Problems): Record<string, string> {
  const invalid = (message: string) => problems.add({ code: "invalid-metadata", message });
  if (value === null) return {};
  if (!isJsonObject(value)) {
    invalid(`${metadataKey} is ${describe(value)}, not an object of strings`);
    return {};
  }
  const entries: [string, string][] = [];
  const seen = new Set<string>();
  value.keys.forEach((key, i) => {
    const text = value.values[i]!;
    if (seen.size === seen.add(key).size)
      addDuplicate(problems, `the key ${quote(key)} of ${metadataKey}`, metadataKey);
    else if (typeof text !== "string")
      invalid(`the value of ${quote(key)} in ${metadataKey} is ${describe(text)}, not a string`);
    else entries.push([key, text]);
  });
  // fromEntries, because assigning to "__proto__" would not make a key.
  return Object.fromEntries(entries);
}

const [dtypeStart, shapeStart, offsetsStart] = ['{"dtype":"', '","shape":[', '],"data_offsets":['];

/**
 * A tensor that is written as the Rust crate writes it, without white space, in its order of fields, and that is valid;
 * undefined for every other, which `parseTensor` then reads and judges.
 */
function plainTensor(
  name: string,
  text: string,
  index: number,
): { tensor: HeaderTensor; end: number } | undefined {
  if (name === metadataKey || !text.startsWith(dtypeStart, index)) return undefined;
  const dtypeAt = index + dtypeStart.length;
  let at = text.indexOf('"', dtypeAt);
  if (at === -1 || at - dtypeAt > 12) return undefined;
  const dtype = headerDtypes.get(text.slice(dtypeAt, at));
  if (dtype === undefined || !text.startsWith(shapeStart, at)) return undefined;
  at += shapeStart.length;
  const numbers: number[] = [];
  let size = byteSize(dtype);
  if (text.charCodeAt(at) !== 0x5d)
    for (;;) {
      const end = digitsEnd(text, at);
      if (end === at) return undefined;
      const dim = integer(text, at, end);
      numbers.push(dim);
      size *= dim;
      at = end;
      if (text.charCodeAt(at) !== 0x2c) break;
      at++;
    }
  if (!text.startsWith(offsetsStart, at)) return undefined;
  at += offsetsStart.length;
  const comma = digitsEnd(text, at);
  const close = digitsEnd(text, comma + 1);
  if (comma === at || close === comma + 1 || text.charCodeAt(comma) !== 0x2c) return undefined;
  const [start, end] = [integer(text, at, comma), integer(text, comma + 1, close)];
  if (text.charCodeAt(close) !== 0x5d || text.charCodeAt(close + 1) !== 0x7d) return undefined;
  // Sizes that double precision cannot count exactly are left to the careful reader, and so is a zero after them.
  if (end - start !== size || start > end || size === 0) return undefined;
  return { tensor: { name, dtype, shape: numbers, start, end }, end: close + 2 };
}

/** Where the digits end that begin here; nowhere if there are none, a leading zero, or too many to be exact. */
function digitsEnd(text: string, start: number): number {
  let end = start;
  for (let code = text.charCodeAt(end); code >= 0x30 && code <= 0x39; code = text.charCodeAt(end)) end++;
  const hasLeadingZero = end - start > 1 && text.charCodeAt(start) === 0x30;
  return hasLeadingZero || end - start > 15 ? start : end;
}

function integer(text: string, start: number, end: number): number {
  let value = 0;
  for (let i = start; i < end; i++) value = value * 10 + text.charCodeAt(i) - 0x30;
  return value;
}

/** The fields of one tensor, each checked alone. Fields the format does not have are ignored, as in Rust. */
function parseTensor(name: string, value: JsonValue, problems: Problems): HeaderTensor | undefined {
  const before = problems.count;
  const invalid = (message: string, code = "invalid-tensor-info", details = {}) =>
    problems.add({ code, tensor: name, message: `tensor ${quote(name)} ${message}`, ...details });
  if (!isJsonObject(value)) {
    invalid(`is described by ${describe(value)}, not by an object`);
    return undefined;
  }
  let dtypeName: JsonValue | undefined;
  let shape: JsonValue | undefined;
  let offsets: JsonValue | undefined;
  for (let i = 0; i < value.keys.length; i++) {
    const key = value.keys[i]!;
    const field = value.values[i]!;
    if (value.keys.indexOf(key) !== i && (key === "dtype" || key === "shape" || key === "data_offsets"))
      addDuplicate(problems, `the key ${quote(key)} of tensor ${quote(name)}`, name);
    else if (key === "dtype") dtypeName = field;
    else if (key === "shape") shape = field;
    else if (key === "data_offsets") offsets = field;
  }
  const dtype = typeof dtypeName === "string" ? headerDtypes.get(dtypeName) : undefined;
  if (typeof dtypeName !== "string") invalid(`has dtype ${describe(dtypeName)}, not a string`);
  else if (!headerDtypes.has(dtypeName)) {
    const [suggestion] = nearest(dtypeName.slice(0, 40), supportedDtypes, 1);
    const hint = suggestion === undefined ? "" : ` (did the writer mean ${suggestion}?)`;
    invalid(`has the unknown dtype ${quote(dtypeName)}${hint}`, "unknown-dtype", { dtype: dtypeName });
  } else if (dtype === undefined)
    invalid(`has dtype ${dtypeName}, which Graft does not support`, "unsupported-dtype", {
      dtype: dtypeName,
    });
  if (!Array.isArray(shape) || !shape.every(isSize))
    invalid(`has shape ${describe(shape)}, not an array of non-negative integers`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize))
    invalid(`has data_offsets ${describe(offsets)}, not two non-negative integers`, "invalid-offset");
  if (problems.count > before) return undefined;
  const [start, end] = offsets as [Size, Size];
  if (!(start <= end) || typeof end === "bigint") {
    invalid(`has data_offsets [${start}, ${end}], which no file can hold`, "invalid-offset");
    return undefined;
  }
  const span = end - Number(start);
  const size = byteCount(shape as Size[], byteSize(dtype!));
  if (size === undefined)
    invalid(`has shape ${describe(shape)}, whose size in bits overflows 64-bit arithmetic`, "overflow");
  else if (size !== span)
    invalid(
      `has dtype ${dtypeName} and shape ${describe(shape)}, which is ${size} bytes, but its data_offsets ` +
        `[${start}, ${end}] span ${span} bytes`,
      "invalid-tensor-info",
      { start, end },
    );
  else return { name, dtype: dtype!, shape: shape as number[], start: Number(start), end };
  return undefined;
}

/** A dimension or an offset. Rust's usize holds up to 2^64 - 1, so larger numbers are errors there too. */
type Size = number | bigint;

const limit = 2n ** 64n;

const isSize = (value: JsonValue): value is Size =>
  (typeof value === "number" || typeof value === "bigint") && value >= 0 && value < limit;

/**
 * product(shape) · elementSize, or undefined where Rust's checked arithmetic on bits overflows, which it does
 * on the way even if a later dimension is zero. A bigint result is one that no file can have.
 */
function byteCount(shape: readonly Size[], elementSize: number): Size | undefined {
  let product: Size = 1;
  for (const dim of shape) {
    const next: number = Number(product) * Number(dim);
    // Doubles are exact up to 2^53; only absurd shapes go beyond.
    product = Number.isSafeInteger(next) ? next : BigInt(product) * BigInt(dim);
    if (product >= limit) return undefined;
  }
  const size = Number(product) * elementSize;
  if (Number.isSafeInteger(size)) return size;
  const exact = BigInt(product) * BigInt(elementSize);
  return exact * 8n < limit ? exact : undefined;
}

/** Tensors, sorted by offset, must cover the data exactly: no overlap, no hole, nothing after the last. */
function checkLayout(tensors: readonly HeaderTensor[], dataLength: number, problems: Problems): void {
  let covered = 0;
  let last: HeaderTensor | undefined;
  for (const tensor of tensors) {
    const { name, start, end } = tensor;
    const before = last;
    const after = () => (before === undefined ? "the header" : `tensor ${quote(before.name)}`);
    if (start > covered)
      problems.add({
        code: "invalid-offset",
        tensor: name,
        start,
        message: `tensor ${quote(name)} starts at ${start}, which leaves a hole of ${start - covered} bytes after ${after()}`,
      });
    else if (start < covered)
      problems.add({
        code: "invalid-offset",
        tensor: name,
        start,
        message: `tensor ${quote(name)} starts at ${start} and overlaps ${after()}, which ends at ${covered}`,
      });
    if (end >= covered) last = tensor;
    covered = Math.max(covered, end);
  }
  if (covered === dataLength) return;
  const counts = `the tensors need ${covered} bytes of data, but the file has ${dataLength} after its header`;
  problems.add({
    code: "incomplete-buffer",
    expected: covered,
    actual: dataLength,
    message:
      covered > dataLength
        ? `${counts}: ${covered - dataLength} are missing, as after an interrupted download`
        : `${counts}: ${dataLength - covered} at the end belong to no tensor`,
  });
}
