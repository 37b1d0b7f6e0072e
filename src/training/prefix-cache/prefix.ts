import type { Batch } from "../../data/index.ts";
import { type Cut, cutFrozen, type Kept, reachable, type Value } from "../../graph/index.ts";
import type { Engine } from "../../runtime/index.ts";
import type { Tensor } from "../../tensor/index.ts";
import { withPictures } from "./batch-rows.ts";
import type { ExampleKeys } from "./example-keys.ts";
import { KeptValues } from "./kept-values.ts";
import type { PrefixStore } from "./types.ts";

const PICTURES = "pixel_values";

export type PrefixOptions = {
  readonly engine: Engine;
  /** What is kept. */
  readonly store: PrefixStore;
  /** What a picture's later rows may want again. */
  readonly features: PrefixStore;
  readonly keys: ExampleKeys;
  /** What the program reads of a batch. */
  readonly feeds: (batch: Batch) => Promise<Readonly<Record<string, Tensor>>>;
  /** Of the graph's symbols, for the costs. */
  readonly sizes: Readonly<Record<string, number>>;
};

/** Names of a graph's inputs. */
export const inputsOf = (outputs: Readonly<Record<string, Value>>): Set<string> =>
  new Set(
    reachable(Object.values(outputs)).flatMap(({ source }) => (source.kind === "input" ? [source.name] : [])),
  );

/**
 * The frozen values of a program. What follows from pictures alone is kept once for each picture, everything else once for each
 * example. To compute the latter, what of it follows from the picture is looked up, if another row with this picture was computed
 * lately: many questions about one picture cost the vision tower once.
 */
export class Prefix {
  private readonly store: PrefixStore;
  private readonly keys: ExampleKeys;
  private readonly ofPictures: KeptValues | undefined;
  private readonly ofExamples: KeptValues | undefined;
  private readonly features: KeptValues | undefined;
  /** Whether the graph behind what is kept reads pictures itself. */
  private readonly readsPictures: boolean;

  constructor(cut: Cut, { engine, store, features, keys, feeds, sizes }: PrefixOptions) {
    this.store = store;
    this.keys = keys;
    this.readsPictures = inputsOf(cut.outputs).has(PICTURES);
    const isOfPicture = ({ value }: Kept): boolean =>
      [...inputsOf({ value })].every((name) => name === PICTURES);
    const graphOf = (kept: readonly Kept[]): Record<string, Value> =>
      Object.fromEntries(kept.map(({ name }) => [name, cut.prefix[name]!]));
    const pictured = (kept: readonly Kept[], graph: Record<string, Value>, of: PrefixStore): KeptValues =>
      new KeptValues({
        kept,
        store: of,
        keys: (batch) => keys.ofPictures(batch),
        load: () => engine.createSession(graph),
        feeds: async (batch) => feeds(await withPictures(batch)),
      });

    const [first, second] = [cut.kept.filter(isOfPicture), cut.kept.filter((kept) => !isOfPicture(kept))];
    if (first.length > 0) this.ofPictures = pictured(first, graphOf(first), store);
    if (second.length === 0) return;
    const whole = graphOf(second);
    const varying = [...inputsOf(whole)].filter((name) => name !== PICTURES);
    const inner = cutFrozen(whole, { varying, sizes, called: "feature" });
    if (inner) this.features = pictured(inner.kept, inner.prefix, features);
    const graph = inner?.outputs ?? whole;
    const direct = inputsOf(graph).has(PICTURES);
    this.ofExamples = new KeptValues({
      kept: second,
      store,
      keys: (batch) => keys.ofExamples(batch),
      load: () => engine.createSession(graph),
      feeds: async (batch) => ({
        ...(await feeds(direct ? await withPictures(batch) : batch)),
        ...(await this.features?.of(batch)),
      }),
    });
  }

  /** The kept values of a batch by name, zero at padding. */
  async of(batch: Batch): Promise<Record<string, Tensor<"float32">>> {
    return { ...(await this.ofPictures?.of(batch)), ...(await this.ofExamples?.of(batch)) };
  }

  /** Loads what computes the values of a batch, unless all are there. */
  async prepare(batch: Batch): Promise<void> {
    await this.ofPictures?.prepare(batch);
    if (await this.ofExamples?.prepare(batch)) await this.features?.prepare(batch);
  }

  /** Shape of the picture of the example at an index of the dataset, [channels, height, width], if nothing will need its values. */
  pictureShape(index: number): readonly number[] | undefined {
    const { example, picture } = this.keys.known(index);
    if (this.readsPictures || picture === undefined) return undefined;
    const isKept = (key: string | undefined): boolean => key !== undefined && this.store.has(key);
    const all = (!this.ofPictures || isKept(picture.key)) && (!this.ofExamples || isKept(example));
    return all ? picture.shape : undefined;
  }

  /** Frees the graphs of what is kept; they are loaded again if need be. */
  async release(): Promise<void> {
    for (const values of [this.ofPictures, this.ofExamples, this.features]) await values?.release();
  }
}
