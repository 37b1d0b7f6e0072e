import { compareCodePoints } from "../python.ts";
import type { NamedShape } from "../tree.ts";

/** Tensors of an adapter's file below one module. */
export type SavedTensors = {
  readonly module: string;
  /** What follows the module's name, and the shape. One array may serve many modules. */
  readonly tensors: readonly NamedShape[];
  /** Where it is not float32: that of a base weight which is saved along. */
  readonly dtype?: StoredDtype;
};

export type StoredDtype = "F32" | "BF16" | "F16";

export type FileSize = { readonly parameters: number; readonly bytes: number };

/** Of more modules, the header's offsets are counted in the order given, not in the file's. */
const sortedModules = 2048;

const metadata = '"__metadata__":{"format":"pt"}';
const entry = '"":{"dtype":"","shape":[],"data_offsets":[,]},';
/** In the order of the file, by alignment. */
const dtypes: Readonly<Record<StoredDtype, { bytes: number; rank: number }>> = {
  F32: { bytes: 4, rank: 0 },
  BF16: { bytes: 2, rank: 1 },
  F16: { bytes: 2, rank: 2 },
};

/** A tensor without its module's name: bytes of its entry in the header but for the offsets, and elements. */
type Measured = { readonly header: number; readonly size: number };

/**
 * Size of adapter_model.safetensors: 8 bytes, the header, padded to a multiple of 8, and the parameters. Exact up to
 * 2,048 modules; beyond, the digits of the offsets may differ by some bytes.
 */
export function safetensorsSize(saved: readonly SavedTensors[]): FileSize {
  const known = new Map<readonly NamedShape[], readonly Measured[]>();
  let header = "{}".length + metadata.length;
  let offset = 0;
  let parameters = 0;
  let digits = 1;
  let limit = 10;
  for (const { module, tensors, dtype = "F32" } of saved.length <= sortedModules ? inFileOrder(saved) : saved) {
    let measured = known.get(tensors);
    if (measured === undefined) known.set(tensors, (measured = tensors.map(measure)));
    const name = jsonLength(module) + dtype.length;
    for (const { header: own, size } of measured) {
      header += name + own + digits;
      parameters += size;
      offset += size * dtypes[dtype].bytes;
      while (offset >= limit) {
        limit *= 10;
        digits++;
      }
      header += digits;
    }
  }
  return { parameters, bytes: 8 + 8 * Math.ceil(header / 8) + offset };
}

function inFileOrder(saved: readonly SavedTensors[]): SavedTensors[] {
  return saved
    .flatMap(({ module, tensors, ...rest }) =>
      tensors.map((tensor) => ({ name: module + tensor[0], module, tensors: [tensor], ...rest })),
    )
    .sort(
      (a, b) =>
        dtypes[a.dtype ?? "F32"].rank - dtypes[b.dtype ?? "F32"].rank || compareCodePoints(a.name, b.name),
    );
}

function measure([tail, shape]: NamedShape): Measured {
  return {
    header: entry.length + jsonLength(tail) + shape.join().length,
    size: shape.reduce((a, b) => a * b, 1),
  };
}

/** Bytes of a string in JSON, without its quotes. */
const jsonLength = (text: string): number =>
  special.test(text) ? new TextEncoder().encode(JSON.stringify(text)).length - 2 : text.length;

const special = /[^ !#-[\]-~]/;
