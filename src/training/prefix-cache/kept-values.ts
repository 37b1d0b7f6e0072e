import type { Batch } from "../../data/index.ts";
import {
  joinKept,
  type Kept,
  type KeptRows,
  type Span,
  spansInRows,
  spansOfCounts,
  splitKept,
} from "../../graph/index.ts";
import type { Session } from "../../runtime/index.ts";
import type { Tensor } from "../../tensor/index.ts";
import { rowsOf } from "./batch-rows.ts";
import type { KeptExample, PrefixStore } from "./types.ts";

export type KeptValuesOptions = {
  readonly kept: readonly Kept[];
  readonly store: PrefixStore;
  /** What the values of each of a batch's examples are stored under. Examples with one key have them in common. */
  readonly keys: (batch: Batch) => Promise<readonly string[]>;
  /** Loads the graph of what is kept. */
  readonly load: () => Promise<Session>;
  /** What that graph reads of a batch. */
  readonly feeds: (batch: Batch) => Promise<Readonly<Record<string, Tensor>>>;
};

/** Frozen values of a dataset's examples, for the graph behind them: computed where the store has none. */
export class KeptValues {
  private readonly options: KeptValuesOptions;
  private session: Promise<Session> | undefined;

  constructor(options: KeptValuesOptions) {
    this.options = options;
  }

  /** The kept values of a batch by name, zero at padding. */
  async of(batch: Batch): Promise<Record<string, Tensor<"float32">>> {
    const { kept, store } = this.options;
    const keys = await this.options.keys(batch);
    const distinct = [...new Set(keys)];
    const stored = await Promise.all(distinct.map((key) => store.get(key)));
    const found = new Map(distinct.map((key, i) => [key, stored[i]]));
    const missing = distinct.filter((_, i) => !stored[i]);
    if (missing.length > 0) {
      const positions = missing.map((key) => keys.indexOf(key));
      for (const [i, values] of (await this.compute(batch, positions)).entries()) {
        found.set(missing[i]!, values);
        await store.put(missing[i]!, values);
      }
    }
    const examples = keys.map((key) => found.get(key)!);
    return Object.fromEntries(
      kept.map(({ name, rows }) => [
        name,
        joinKept(
          rows,
          examples.map((values) => values.get(name)!),
          { leading: leadingOf(rows, batch), spans: spansOf(rows, batch) },
        ),
      ]),
    );
  }

  /** Whether values of the batch have to be computed. Loads the graph of what is kept, if so. */
  async prepare(batch: Batch): Promise<boolean> {
    const keys = await this.options.keys(batch);
    if (keys.every((key) => this.options.store.has(key))) return false;
    await this.loaded();
    return true;
  }

  /** Frees the graph of what is kept; it is loaded again if need be. */
  async release(): Promise<void> {
    const { session } = this;
    this.session = undefined;
    await (await session?.catch(() => undefined))?.dispose();
  }

  private loaded(): Promise<Session> {
    this.session ??= this.options.load();
    return this.session;
  }

  /** Values of the examples at these positions of the batch. */
  private async compute(batch: Batch, positions: readonly number[]): Promise<KeptExample[]> {
    const { kept, feeds } = this.options;
    // Packed rows hold several examples, so they are computed whole.
    const whole = positions.length === batch.places.length || batch.segments !== undefined;
    const part = whole ? batch : rowsOf(batch, positions);
    const session = await this.loaded();
    const { outputs } = await session.run(await feeds(part));
    const parts = kept.map(({ name, rows }) => {
      const values = splitKept(rows, outputs[name] as Tensor<"float32">, spansOf(rows, part));
      return [name, values] as const;
    });
    return positions.map(
      (position, i) => new Map(parts.map(([name, values]) => [name, values[whole ? position : i]!])),
    );
  }
}

/** Whether rows are those of a decoder's tokens, which have a length of their own. */
const isDecoder = (rows: KeptRows): boolean => rows.kind === "token" && rows.sequence === "target";

function spansOf(rows: KeptRows, { places, inputIds, labels }: Batch): Span[] {
  if (rows.kind === "example") return spansOfCounts(places.map(() => 1));
  if (!isDecoder(rows)) return spansInRows(places, inputIds.shape[1]!);
  const decoders = places.map((place) => ({ row: place.row, start: 0, length: place.labels }));
  return spansInRows(decoders, labels.shape[1]!);
}

const leadingOf = (rows: KeptRows, { places, inputIds, labels }: Batch): readonly number[] =>
  rows.kind === "example" ? [places.length] : isDecoder(rows) ? labels.shape : inputIds.shape;
