/**
 * Names that match a module literally, or as a tail after a dot. The cost of a lookup does not depend on the number
 * of entries: only tails with the last part and the number of parts of some entry are looked up.
 */
export class Tails {
  readonly #order = new Map<string, number>();
  /** Last part of an entry to the numbers of dots that entries with this last part have. */
  readonly #dots = new Map<string, number[]>();
  readonly #entries: string[] = [];

  constructor(entries: Iterable<string>) {
    for (const entry of entries) {
      if (this.#order.has(entry)) continue;
      this.#order.set(entry, this.#entries.length);
      this.#entries.push(entry);
      const leaf = entry.slice(entry.lastIndexOf(".") + 1);
      const dots = countDots(entry);
      const known = this.#dots.get(leaf);
      if (known === undefined) this.#dots.set(leaf, [dots]);
      else if (!known.includes(dots)) known.push(dots);
    }
  }

  /** Is `name` itself an entry? */
  has(name: string): boolean {
    return this.#order.has(name);
  }

  /** The first entry, in order, that is `name` or a tail of it after a dot. */
  find(name: string): string | undefined {
    const counts = this.#dots.get(name.slice(name.lastIndexOf(".") + 1));
    if (counts === undefined) return undefined;
    let best: number | undefined;
    for (const dots of counts) {
      const tail = tailWithDots(name, dots);
      const order = tail === undefined ? undefined : this.#order.get(tail);
      if (order !== undefined && (best === undefined || order < best)) best = order;
    }
    return best === undefined ? undefined : this.#entries[best];
  }

  /** All entries that are `name` or a tail of it after a dot. */
  findAll(name: string): string[] {
    const counts = this.#dots.get(name.slice(name.lastIndexOf(".") + 1));
    if (counts === undefined) return [];
    const found: string[] = [];
    for (const dots of counts) {
      const tail = tailWithDots(name, dots);
      if (tail !== undefined && this.#order.has(tail)) found.push(tail);
    }
    return found;
  }
}

function countDots(text: string): number {
  let count = 0;
  for (let dot = text.indexOf("."); dot !== -1; dot = text.indexOf(".", dot + 1)) count++;
  return count;
}

/** The tail of `name` that holds this many dots; undefined where it has fewer. */
function tailWithDots(name: string, dots: number): string | undefined {
  let start = name.length;
  for (let i = 0; i <= dots; i++) {
    if (start === 0) return i === dots ? name : undefined;
    start = name.lastIndexOf(".", start - 1);
    if (start === -1) return i === dots ? name : undefined;
  }
  return name.slice(start + 1);
}
