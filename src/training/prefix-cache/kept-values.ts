import type { Batch, ExamplePlace } from "../../data/index.ts";
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
import { numel, type Tensor, tensor } from "../../tensor/index.ts";
import { exampleKey } from "./keys.ts";
import type { KeptExample, PrefixStore } from "./types.ts";

export type KeptValuesOptions = {
  readonly kept: readonly Kept[];
  readonly store: PrefixStore;
  /** What the values depend on besides the example: which program computes them. */
  readonly scope: string;
  /** Keys of examples that are known, by their index in the dataset; filled. */
  readonly keys: Map<number, string>;
  /** Loads the graph of what is kept. */
  readonly load: () => Promise<Session>;
  /** What that graph reads of a batch. */
  readonly feeds: (batch: Batch) => Promise<Readonly<Record<string, Tensor>>>;
  /** Names of its inputs. */
  readonly reads: ReadonlySet<string>;
};

/** The frozen values of a dataset's examples, for the graph behind them: computed for an example where the store has none. */
export class KeptValues {
  private readonly options: KeptValuesOptions;
  private session: Promise<Session> | undefined;

  constructor(options: KeptValuesOptions) {
    this.options = options;
  }

  /** The kept values of a batch by name, zero at padding. */
  async of(batch: Batch): Promise<Record<string, Tensor<"float32">>> {
    const { kept, store } = this.options;
    const { places } = batch;
    const keys = await Promise.all(places.map((_, i) => this.keyOf(batch, i)));
    const found = await Promise.all(keys.map((key) => store.get(key)));
    const missing = places.flatMap((_, i) => (found[i] ? [] : [i]));
    if (missing.length > 0)
      for (const [i, values] of await this.compute(batch, missing)) {
        found[i] = values;
        await store.put(keys[i]!, values);
      }
    return Object.fromEntries(
      kept.map(({ name, rows }) => [
        name,
        joinKept(
          rows,
          found.map((values) => values!.get(name)!),
          { leading: leadingOf(rows, batch), spans: spansOf(rows, batch) },
        ),
      ]),
    );
  }

  /** Loads the graph of what is kept, unless all values of the batch are there. */
  async prepare(batch: Batch): Promise<void> {
    const keys = await Promise.all(batch.places.map((_, i) => this.keyOf(batch, i)));
    if (!keys.every((key) => this.options.store.has(key))) await this.loaded();
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

  private async keyOf(batch: Batch, position: number): Promise<string> {
    const { keys, reads, scope } = this.options;
    const { index, start } = batch.places[position]!;
    // Behind padding, its positions depend on the batch, and with them its key.
    const moves = start > 0 && batch.segments === undefined;
    const known = moves ? undefined : keys.get(index);
    if (known !== undefined) return known;
    const key = await exampleKey(ownTensors(batch, position, reads), scope);
    if (!moves) keys.set(index, key);
    return key;
  }

  /** Values of the examples at these positions of the batch. */
  private async compute(batch: Batch, missing: readonly number[]): Promise<Map<number, KeptExample>> {
    const { kept, feeds } = this.options;
    // Packed rows hold several examples, so they are computed whole.
    const whole = missing.length === batch.places.length || batch.segments !== undefined;
    const part = whole ? batch : rowsOf(batch, missing);
    const { outputs } = await (await this.loaded()).run(await feeds(part));
    const parts = new Map(
      kept.map(({ name, rows }) => [
        name,
        splitKept(rows, outputs[name] as Tensor<"float32">, spansOf(rows, part)),
      ]),
    );
    return new Map(
      missing.map((position, i) => [
        position,
        new Map([...parts].map(([name, values]) => [name, values[whole ? position : i]!])),
      ]),
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

/** What the graph reads of one example, without the padding of its batch. */
function ownTensors(batch: Batch, position: number, reads: ReadonlySet<string>): Record<string, Tensor> {
  const place = batch.places[position]!;
  const { pixelValues } = batch;
  return {
    input_ids: columns(batch.inputIds, place, place.start, place.length),
    // Its first token's place, where that is not the first of its row: positions count from there.
    ...(batch.segments === undefined &&
      place.start > 0 && { start: tensor("int64", [1], BigInt64Array.of(BigInt(place.start))) }),
    ...(reads.has("decoder_input_ids") && { labels: columns(batch.labels, place, 0, place.labels) }),
    ...(reads.has("pixel_values") && pixelValues && { pixel_values: rowOf(pixelValues, position) }),
  };
}

const columns = (
  { shape, data }: Tensor<"int64">,
  { row }: ExamplePlace,
  start: number,
  length: number,
): Tensor<"int64"> => {
  const from = row * shape[1]! + start;
  return tensor("int64", [length], data.slice(from, from + length));
};

function rowOf<D extends "int64" | "float32">({ dtype, shape, data }: Tensor<D>, row: number): Tensor<D> {
  const size = numel(shape.slice(1));
  return tensor(dtype, [1, ...shape.slice(1)], data.slice(row * size, (row + 1) * size) as typeof data);
}

/** The batch of some of a batch's rows, each with one example. */
function rowsOf(batch: Batch, positions: readonly number[]): Batch {
  const rows = positions.map((position) => batch.places[position]!.row);
  const { inputIds, attentionMask, labels, pixelValues } = batch;
  return {
    inputIds: pick(inputIds, rows),
    attentionMask: pick(attentionMask, rows),
    labels: pick(labels, rows),
    ...(pixelValues && { pixelValues: pick(pixelValues, positions) }),
    places: positions.map((position, row) => ({ ...batch.places[position]!, row })),
    tokens: positions.reduce((sum, position) => sum + batch.places[position]!.length, 0),
    labelTokens: batch.labelTokens,
  };
}

function pick<D extends "int64" | "float32">(
  { dtype, shape, data }: Tensor<D>,
  rows: readonly number[],
): Tensor<D> {
  const size = numel(shape.slice(1));
  const picked = data.slice(0, rows.length * size) as typeof data;
  for (const [i, row] of rows.entries())
    picked.set(data.subarray(row * size, (row + 1) * size) as never, i * size);
  return tensor(dtype, [rows.length, ...shape.slice(1)], picked);
}
