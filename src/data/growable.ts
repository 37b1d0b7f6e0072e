type NumberArray = Float64Array | Uint32Array | Int32Array;

/** A typed array that grows by doubling, for indexes of files whose size is not known in advance. */
export class Growable<A extends NumberArray> {
  #data: A;
  #length = 0;
  readonly #create: (length: number) => A;

  constructor(create: (length: number) => A) {
    this.#create = create;
    this.#data = create(1024);
  }

  get length(): number {
    return this.#length;
  }

  push(value: number): void {
    if (this.#length === this.#data.length) this.#reserve(this.#length + 1);
    this.#data[this.#length++] = value;
  }

  append(values: ArrayLike<number>): void {
    this.#reserve(this.#length + values.length);
    this.#data.set(values, this.#length);
    this.#length += values.length;
  }

  at(index: number): number {
    return this.#data[index]!;
  }

  /** A view, valid until the next push. */
  view(start: number, end: number): A {
    return this.#data.subarray(start, Math.min(end, this.#length)) as A;
  }

  #reserve(length: number): void {
    if (length <= this.#data.length) return;
    const grown = this.#create(Math.max(length, this.#data.length * 2));
    grown.set(this.#data.subarray(0, this.#length));
    this.#data = grown;
  }
}
