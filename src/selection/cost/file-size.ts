import { compareCodePoints } from "../python.ts";
import type { NamedShape } from "../tree.ts";

/** How a tensor is stored. */
export type StoredDtype = "F32" | "BF16" | "F16";

type Entry = { readonly module: string; readonly tensors: readonly Measured[]; readonly dtype: StoredDtype };

/** A tensor without its module's name: bytes of its entry in the header but for the offsets, and elements. */
type Measured = { readonly tail: string; readonly header: number; readonly size: number };

/** Equal tensors of several modules. */
type Group = {
  readonly tensors: readonly Measured[];
  readonly dtype: StoredDtype;
  modules: number;
  nameLength: number;
};

/** Up to so many modules, the header's offsets are counted one by one. */
export const countedModules = 2048;

const metadata = '"__metadata__":{"format":"pt"}';
const entry = '"":{"dtype":"","shape":[],"data_offsets":[,]},';
/** In the order of the file, by alignment. */
const dtypes: Readonly<Record<StoredDtype, { bytes: number; rank: number }>> = {
  F32: { bytes: 4, rank: 0 },
  BF16: { bytes: 2, rank: 1 },
  F16: { bytes: 2, rank: 2 },
};

/**
 * Size of an adapter's adapter_model.safetensors: 8 bytes, the header, padded to a multiple of 8, and the parameters.
 * Exact up to 2,048 modules; beyond, the tensors are taken to have equal sizes where the digits of their offsets are
 * counted, which may be off by some bytes in a million.
 */
export class AdapterFile {
  #isCounted = true;
  readonly #prefix: string;
  readonly #entries: Entry[] = [];
  readonly #groups = new Map<readonly NamedShape[], Group>();

  /** @param prefix what all names begin with. */
  constructor(prefix: string) {
    this.#prefix = prefix;
  }

  /** Adds tensors below a module: what follows its name, and shapes. One array may serve many modules. */
  add(module: string, tensors: readonly NamedShape[], dtype: StoredDtype = "F32"): void {
    let group = this.#groups.get(tensors);
    if (group === undefined) {
      group = { tensors: tensors.map(measure), dtype, modules: 0, nameLength: 0 };
      this.#groups.set(tensors, group);
    }
    group.modules++;
    group.nameLength += module.length;
    if (this.#entries.length <= countedModules) this.#entries.push({ module, tensors: group.tensors, dtype });
  }

  /** Adds the same tensors below many modules of which only the number and the length of all names is known. */
  addMany(modules: number, nameLength: number, tensors: readonly NamedShape[]): void {
    this.add("", tensors);
    const group = this.#groups.get(tensors)!;
    group.modules += modules - 1;
    group.nameLength += nameLength;
    this.#isCounted = false;
  }

  get parameters(): number {
    return this.#sum(({ size }) => size);
  }

  #sum(of: (tensor: Measured, group: Group) => number): number {
    let total = 0;
    for (const group of this.#groups.values())
      for (const tensor of group.tensors) total += group.modules * of(tensor, group);
    return total;
  }

  get bytes(): number {
    const data = this.#sum(({ size }, { dtype }) => size * dtypes[dtype].bytes);
    const text =
      this.#isCounted && this.#entries.length <= countedModules
        ? this.#countedHeader()
        : this.#usualHeader(data);
    return 8 + 8 * Math.ceil(("{}".length + metadata.length + text) / 8) + data;
  }

  #countedHeader(): number {
    let header = 0;
    let offset = 0;
    for (const { name, size, own, dtype } of this.#entries
      .flatMap(({ module, tensors, dtype }) =>
        tensors.map(({ tail, header: own, size }) => ({ name: module + tail, own, size, dtype, tail })),
      )
      .map((tensor) => ({ ...tensor, own: tensor.own - tensor.tail.length }))
      .sort((a, b) => dtypes[a.dtype].rank - dtypes[b.dtype].rank || compareCodePoints(a.name, b.name))) {
      header += own + jsonLength(this.#prefix + name) + dtype.length + digitsOf(offset);
      offset += size * dtypes[dtype].bytes;
      header += digitsOf(offset);
    }
    return header;
  }

  /** With the offsets of tensors of equal size: each is the end of one and, but for the last, the start of the next. */
  #usualHeader(data: number): number {
    let header = 0;
    for (const { tensors, modules, nameLength, dtype } of this.#groups.values())
      for (const tensor of tensors)
        header += modules * (tensor.header + this.#prefix.length + dtype.length) + nameLength;
    const count = this.#sum(() => 1);
    const size = data / count;
    header += 1 - digitsOf(data); // the first start is 0, the last end starts nothing
    for (let digits = 1, low = 1; low <= count; digits++) {
      const next = Math.max(low, Math.min(Math.ceil(10 ** digits / size), count + 1));
      header += 2 * digits * (next - low);
      low = next;
    }
    return header;
  }
}

function measure([tail, shape]: NamedShape): Measured {
  return {
    tail,
    header: entry.length + tail.length + shape.join().length,
    size: shape.reduce((a, b) => a * b, 1),
  };
}

const digitsOf = (value: number): number => String(value).length;

/** Bytes of a string in JSON, without its quotes. */
const jsonLength = (text: string): number =>
  /[^ !#-[\]-~]/.test(text) ? new TextEncoder().encode(JSON.stringify(text)).length - 2 : text.length;
