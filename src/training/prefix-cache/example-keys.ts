import type { Batch } from "../../data/index.ts";
import { numel, tensor } from "../../tensor/index.ts";
import { ownTokens } from "./batch-rows.ts";
import { combinedKey, exampleKey } from "./keys.ts";

/** A picture that has been seen. */
type Picture = {
  /** Of its values alone. */
  readonly digest: string;
  readonly key: string;
  /** [channels, height, width] */
  readonly shape: readonly number[];
};

/**
 * Keys of a dataset's examples and of their pictures, from what they hold. Each is found once: a dataset is taken not to
 * change while a run reads it.
 */
export class ExampleKeys {
  private readonly scope: string;
  private readonly reads: ReadonlySet<string>;
  private readonly examples = new Map<number, string>();
  private readonly pictures = new Map<number, Picture>();

  /**
   * @param scope what kept values depend on besides the example: which program computes them.
   * @param reads names of what that program reads.
   */
  constructor(scope: string, reads: ReadonlySet<string>) {
    this.scope = scope;
    this.reads = reads;
  }

  /** Of a batch's examples. */
  ofExamples(batch: Batch): Promise<string[]> {
    return Promise.all(batch.places.map((_, position) => this.ofExample(batch, position)));
  }

  /** Of the picture of each of a batch's examples; the same for the same picture. */
  async ofPictures(batch: Batch): Promise<string[]> {
    const pictures = await Promise.all(batch.places.map((_, position) => this.ofPicture(batch, position)));
    return pictures.map(({ key }) => key);
  }

  /** What is known of the example at an index of the dataset. */
  known(index: number): { readonly example: string | undefined; readonly picture: Picture | undefined } {
    return { example: this.examples.get(index), picture: this.pictures.get(index) };
  }

  private async ofExample(batch: Batch, position: number): Promise<string> {
    const { index, start } = batch.places[position]!;
    // Behind padding, its positions depend on the batch, and with them its key.
    const moves = start > 0 && batch.segments === undefined;
    const known = moves ? undefined : this.examples.get(index);
    if (known !== undefined) return known;
    const tokens = ownTokens(batch, position, { labels: this.reads.has("decoder_input_ids") });
    const picture = this.reads.has("pixel_values") ? (await this.ofPicture(batch, position)).digest : "";
    const key = await exampleKey(tokens, JSON.stringify([this.scope, picture]));
    if (!moves) this.examples.set(index, key);
    return key;
  }

  private async ofPicture(batch: Batch, position: number): Promise<Picture> {
    const { index } = batch.places[position]!;
    const known = this.pictures.get(index);
    if (known) return known;
    const { pixelValues, unreadPictures } = batch;
    const values = pixelValues
      ? { all: pixelValues, row: position }
      : { all: await unreadPictures!.read([position]), row: 0 };
    const shape = values.all.shape.slice(1);
    const [start, end] = [values.row * numel(shape), (values.row + 1) * numel(shape)];
    const digest = await exampleKey({
      pixel_values: tensor("float32", shape, values.all.data.subarray(start, end)),
    });
    const picture = { digest, key: await combinedKey(this.scope, digest), shape };
    this.pictures.set(index, picture);
    return picture;
  }
}
