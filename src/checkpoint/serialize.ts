import { CheckpointError } from "../errors.ts";
import { byteSize, numel, type Tensor } from "../tensor/index.ts";
import type { ReadOptions } from "./byte-source.ts";
import { alignmentRank, headerName } from "./dtype-names.ts";
import { maxHeaderLength, metadataKey, prefixLength } from "./header.ts";
import { Problems, quote } from "./problems.ts";
import type { TensorEntry } from "./tensor-entry.ts";

type Named<T> = Readonly<Record<string, T>> | ReadonlyMap<string, T>;

/** Tensors by name, in memory. */
export type Tensors = Named<Tensor>;

/** Tensors by name, in memory or still in their file, from which they are copied piece by piece. */
export type TensorsOrEntries = Named<Tensor | TensorEntry>;

/** Free-text annotations; PEFT and transformers write `{ format: "pt" }`. */
export type Metadata = Readonly<Record<string, string>>;

/** Bytes of a `TensorEntry` that are in memory at a time while it is copied. */
const copyLength = 16 * 2 ** 20;

/**
 * A safetensors file as bytes, the same that the Python library writes: tensors by decreasing alignment of
 * their dtype, then by name; the header padded with spaces to a multiple of 8. Where Python's order of
 * metadata keys is random, this one is sorted, so that equal contents give equal bytes.
 * @throws CheckpointError if a name, shape or metadata value cannot be written.
 * Source: huggingface/safetensors, safetensors/src/tensor.rs, `prepare`.
 */
export function serializeSafetensors(tensors: Tensors, metadata?: Metadata): Uint8Array<ArrayBuffer> {
  const { head, items, byteLength } = layOut<Tensor>(tensors, metadata);
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = new Uint8Array(byteLength);
  } catch (cause) {
    throw new CheckpointError(
      `The file would have ${byteLength} bytes, more than fits in memory. Write it piece by piece, with ` +
        "writeSafetensors or safetensorsChunks.",
      { code: "out-of-memory", details: { byteLength }, cause },
    );
  }
  bytes.set(head);
  let offset = head.length;
  for (const [, { data }] of items) {
    bytes.set(bytesOf(data), offset);
    offset += data.byteLength;
  }
  return bytes;
}

/**
 * The same bytes piece by piece, for files larger than memory. Tensors given as `TensorEntry` are copied from
 * where they are.
 * @throws CheckpointError as serializeSafetensors, and if a source cannot be read.
 */
export async function* safetensorsChunks(
  tensors: TensorsOrEntries,
  metadata?: Metadata,
  options?: ReadOptions,
): AsyncGenerator<Uint8Array> {
  const { head, items } = layOut<Tensor | TensorEntry>(tensors, metadata);
  yield head;
  for (const [, item] of items) {
    if ("data" in item) {
      if (item.data.byteLength > 0) yield bytesOf(item.data);
      continue;
    }
    const end = item.byteOffset + item.byteLength;
    for (let start = item.byteOffset; start < end; start += copyLength)
      yield item.source.read(start, Math.min(start + copyLength, end), options);
  }
}

const bytesOf = (data: Tensor["data"]): Uint8Array =>
  new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/** The beginning of the file (length and header), the tensors in their order, and the size of it all. */
function layOut<T extends Tensor | TensorEntry>(tensors: Named<T>, metadata: Metadata | undefined) {
  const items =
    tensors instanceof Map ? [...(tensors as Map<string, T>)] : Object.entries(tensors as Record<string, T>);
  check(items, metadata);
  const sorted = items.toSorted(
    ([aName, a], [bName, b]) =>
      alignmentRank(b.dtype) - alignmentRank(a.dtype) || compareCodePoints(aName, bName),
  );
  let offset = 0;
  const members = metadata === undefined ? [] : [`"${metadataKey}":${stringify(metadata)}`];
  for (const [name, item] of sorted) {
    const end = offset + numel(item.shape) * byteSize(item.dtype);
    const info = { dtype: headerName(item.dtype), shape: item.shape, data_offsets: [offset, end] };
    members.push(`${JSON.stringify(name)}:${JSON.stringify(info)}`);
    offset = end;
  }
  const head = encodeHeader(`{${members.join(",")}}`);
  return { head, items: sorted, byteLength: head.length + offset };
}

const stringify = (metadata: Metadata): string =>
  `{${Object.entries(metadata)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`)
    .join(",")}}`;

/** Order of UTF-8 bytes, which is that of code points; JavaScript compares UTF-16 units. */
function compareCodePoints(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) return rank(x) - rank(y);
  }
  return a.length - b.length;
}

/** Surrogates, which stand for code points above all others, go after 0xe000 to 0xffff. */
const rank = (unit: number): number => (unit >= 0xd800 && unit <= 0xdfff ? unit + 0x1_0000 : unit);

function encodeHeader(json: string): Uint8Array<ArrayBuffer> {
  const text = new TextEncoder().encode(json);
  const length = Math.ceil(text.length / 8) * 8;
  if (length > maxHeaderLength)
    throw new CheckpointError(
      `The header would have ${length} bytes; the safetensors format allows ${maxHeaderLength}. ` +
        "Shorten the metadata or split the tensors over several files.",
      { code: "header-too-large", details: { length, limit: maxHeaderLength } },
    );
  const head = new Uint8Array(prefixLength + length).fill(0x20);
  new DataView(head.buffer).setBigUint64(0, BigInt(length), true);
  head.set(text, prefixLength);
  return head;
}

/** What the format, or any reader, would not take. */
function check(
  items: readonly (readonly [string, Tensor | TensorEntry])[],
  metadata: Metadata | undefined,
): void {
  const problems = new Problems();
  const add = (code: string, message: string, tensor?: string) =>
    problems.add({ code, message, ...(tensor !== undefined && { tensor }) });
  for (const [name, item] of items) {
    const { dtype, shape } = item;
    const of = `tensor ${quote(name)}`;
    if (name === metadataKey)
      add("invalid-name", `${of} has the name that the format keeps for metadata`, name);
    if (!isWellFormed(name)) add("invalid-name", `${of} has half a surrogate pair in its name`, name);
    const length = "data" in item ? item.data.length : item.byteLength / byteSize(dtype);
    if (!shape.every((dim) => Number.isSafeInteger(dim) && dim >= 0))
      add("invalid-shape", `${of} has shape [${shape}], not non-negative integers`, name);
    else if (numel(shape) !== length)
      add(
        "invalid-shape",
        `${of} has shape [${shape}], which is ${numel(shape)} values, but has ${length}`,
        name,
      );
  }
  for (const [key, value] of Object.entries(metadata ?? {})) {
    if (typeof value !== "string")
      add("invalid-metadata", `the metadata value of ${quote(key)} is ${typeof value}, not a string`);
    else if (!isWellFormed(key) || !isWellFormed(value))
      add("invalid-metadata", `the metadata entry ${quote(key)} has half a surrogate pair`);
  }
  problems.throwIfAny({
    file: "Cannot write safetensors",
    code: "unwritable",
    remedy: "Correct the tensors or the metadata; nothing was written.",
  });
}

/** False if the string has half a surrogate pair, which UTF-8 cannot express. */
const isWellFormed = (text: string): boolean => !/\p{Surrogate}/u.test(text);
