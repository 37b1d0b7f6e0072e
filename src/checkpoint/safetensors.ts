import { CheckpointError } from "../errors.ts";
import type { ByteSource, ReadOptions } from "./byte-source.ts";
import { foreignError, foreignFormat } from "./foreign.ts";
import { parseHeader, parseHeaderLength, prefixLength } from "./header.ts";
import type { TensorEntry } from "./tensor-entry.ts";

/** The tensors of a model's files, by reference. */
export type Checkpoint = {
  /** The file or directory, as the user spelled it. */
  readonly name: string;
  /** By name, in the order of the bytes; shard after shard. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  /** The free-text annotations of the header (`__metadata__`); empty where there are none. */
  readonly metadata: Readonly<Record<string, string>>;
};

/**
 * Bytes read first, in the hope that the whole header is among them: 100,000 hold some 1,000 tensors, enough
 * for most models, and cost little more than a smaller request.
 */
export const firstReadLength = 100_000;

/**
 * Reads and validates the header of one safetensors file; no tensor data is read.
 * @throws CheckpointError with every problem of the header; the signal's reason if aborted.
 */
export async function readSafetensors(source: ByteSource, options?: ReadOptions): Promise<Checkpoint> {
  const { entries, metadata } = await readEntries(source, options);
  return { name: source.name, tensors: new Map(entries.map((entry) => [entry.name, entry])), metadata };
}

/** As `readSafetensors`, with the tensors, whose names differ, as a list. */
export async function readEntries(
  source: ByteSource,
  options?: ReadOptions,
): Promise<{ readonly entries: readonly TensorEntry[]; readonly metadata: Checkpoint["metadata"] }> {
  const head = await source.read(0, Math.min(source.size, firstReadLength), options);
  const length = headerLength(source, head);
  const headerEnd = prefixLength + length;
  if (headerEnd > head.length) checkBeginning(source, head);
  const rest = headerEnd > head.length ? await source.read(head.length, headerEnd, options) : undefined;
  const header = parseHeader(source.name, headerBytes(head, rest, headerEnd), source.size);
  const entries = header.tensors.map(({ name, dtype, shape, start, end }) => ({
    name,
    dtype,
    shape,
    source,
    byteOffset: header.dataStart + start,
    byteLength: end - start,
  }));
  return { entries, metadata: header.metadata };
}

/** The announced length; where it cannot be, says what else the file is if that can be told. */
function headerLength(source: ByteSource, head: Uint8Array): number {
  const foreign = foreignFormat(head);
  try {
    const length = parseHeaderLength(source.name, head, source.size);
    // A zip of a pickle can pass for a header of 67 MB; what follows cannot.
    if (foreign === undefined || mayBeHeader(head)) return length;
  } catch (cause) {
    // Conversely, a header of 640 bytes begins like a pickle, and may have been cut short.
    const impossible = cause instanceof CheckpointError && cause.code === "header-too-large";
    if (foreign === undefined || !(impossible || !mayBeHeader(head))) throw cause;
  }
  throw foreignError(source.name, foreign);
}

/** A header begins with "{", perhaps after JSON white space, with which writers may align the data. */
function mayBeHeader(head: Uint8Array): boolean {
  const first = head.subarray(prefixLength).find((byte) => ![0x20, 0x09, 0x0a, 0x0d].includes(byte));
  return first === undefined || first === 0x7b;
}

/** Saves fetching up to 100 MB that cannot be a header. */
function checkBeginning(source: ByteSource, head: Uint8Array): void {
  if (mayBeHeader(head)) return;
  throw new CheckpointError(
    `${source.name}: the header does not begin with "{". This is not a safetensors file, or it is damaged: ` +
      "check the name, or download it again.",
    { code: "invalid-header-json", details: { file: source.name, position: 0 } },
  );
}

function headerBytes(head: Uint8Array, rest: Uint8Array | undefined, end: number): Uint8Array {
  if (rest === undefined) return head.subarray(prefixLength, end);
  const bytes = new Uint8Array(end - prefixLength);
  bytes.set(head.subarray(prefixLength));
  bytes.set(rest, head.length - prefixLength);
  return bytes;
}
