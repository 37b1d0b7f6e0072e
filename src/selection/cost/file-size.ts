import { compareCodePoints } from "../python.ts";

/** A tensor of an adapter's file. The name comes in parts, so that most are never joined. */
export type SavedTensor = {
  readonly module: string;
  readonly tail: string;
  readonly shape: readonly number[];
};

export type FileSize = { readonly parameters: number; readonly bytes: number };

/** Beyond so many tensors the header's offsets are counted in the order given, not in the file's. */
const sortedTensors = 4096;

const metadata = '"__metadata__":{"format":"pt"}';
const entry = '"":{"dtype":"F32","shape":[],"data_offsets":[,]}';

/**
 * Size of adapter_model.safetensors: 8 bytes, the header, padded to a multiple of 8, and 4 bytes a parameter. Exact up to
 * 4,096 tensors; beyond, the digits of the offsets may differ by some bytes.
 */
export function safetensorsSize(tensors: Iterable<SavedTensor>): FileSize {
  let all = [...tensors];
  if (all.length <= sortedTensors)
    all = all
      .map((tensor) => ({ tensor, name: tensor.module + tensor.tail }))
      .sort((a, b) => compareCodePoints(a.name, b.name))
      .map(({ tensor }) => tensor);
  let header = "{}".length + metadata.length;
  let offset = 0;
  for (const { module, tail, shape } of all) {
    let size = 4;
    let dims = Math.max(0, shape.length - 1);
    for (const dim of shape) {
      size *= dim;
      dims += digits(dim);
    }
    header += 1 + entry.length + jsonLength(module) + jsonLength(tail) + dims + digits(offset);
    offset += size;
    header += digits(offset);
  }
  return { parameters: offset / 4, bytes: 8 + 8 * Math.ceil(header / 8) + offset };
}

function digits(value: number): number {
  let count = 1;
  for (let limit = 10; value >= limit; limit *= 10) count++;
  return count;
}

/** Bytes of a string in JSON, without its quotes. */
const jsonLength = (text: string): number =>
  isPlain(text) ? text.length : new TextEncoder().encode(JSON.stringify(text)).length - 2;

function isPlain(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 32 || code > 126 || code === 34 || code === 92) return false;
  }
  return true;
}
