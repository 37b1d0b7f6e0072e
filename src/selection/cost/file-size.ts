import { compareCodePoints } from "../python.ts";
import type { NamedShape } from "../tree.ts";

/** How a tensor is stored. */
export type StoredDtype = "F32" | "BF16" | "F16";

type Entry = { readonly module: string; readonly tensors: readonly Measured[]; readonly dtype: StoredDtype };

/** A tensor without its module's name: bytes of its entry in the header but for the offsets, and elements. */
type Measured = { readonly tail: string; readonly header: number; readonly size: number };

/** Up to so many modules, the header's offsets are counted one by one. */
const countedModules = 2048;

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
  parameters = 0;
  #dataBytes = 0;
  #tensors = 0;
  /** Of all entries without their offsets. */
  #header = 0;
  #modules = 0;
  readonly #prefix: string;
  readonly #entries: Entry[] = [];
  readonly #measured = new Map<readonly NamedShape[], readonly Measured[]>();

  /** @param prefix what all names begin with. */
  constructor(prefix: string) {
    this.#prefix = prefix;
  }

  /** Adds tensors below a module: what follows its name, and shapes. One array may serve many modules. */
  add(module: string, tensors: readonly NamedShape[], dtype: StoredDtype = "F32"): void {
    let measured = this.#measured.get(tensors);
    if (measured === undefined) this.#measured.set(tensors, (measured = tensors.map(measure)));
    if (this.#modules++ < countedModules) this.#entries.push({ module, tensors: measured, dtype });
    const name = this.#prefix.length + module.length + dtype.length;
    for (const { header, size } of measured) {
      this.#header += name + header;
      this.parameters += size;
      this.#dataBytes += size * dtypes[dtype].bytes;
    }
    this.#tensors += measured.length;
  }

  get bytes(): number {
    const text = this.#modules <= countedModules ? this.#countedHeader() : this.#header + this.#usualDigits();
    const header = "{}".length + metadata.length + text;
    return 8 + 8 * Math.ceil(header / 8) + this.#dataBytes;
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

  /** Digits of the offsets of equal tensors: each offset is the end of one and, but the last, the start of the next. */
  #usualDigits(): number {
    const size = this.#dataBytes / this.#tensors;
    let digits = 1; // the first start, 0
    for (let length = 1, low = 1; low <= this.#tensors; length++) {
      const next = Math.min(Math.ceil(10 ** length / size), this.#tensors + 1);
      digits += 2 * length * Math.max(0, next - low);
      low = Math.max(low, next);
    }
    return digits - digitsOf(this.#dataBytes);
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
