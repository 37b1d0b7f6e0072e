import type { Place } from "../data/problem.ts";
import type { ImageSource, RowProcessor } from "../data/types.ts";
import { DataError } from "../errors.ts";
import type { Tensor } from "../tensor/index.ts";
import type { Florence2Processor } from "./florence2/processor.ts";
import { isNode, MAX_PIXELS } from "./images/read-image.ts";
import { atRow, checkRowPicture, type Preparation, preparePicture } from "./pictures/prepare.ts";

export type RowProcessorOptions = {
  /** Pictures that are decoded at the same time; the others wait as what names them. Default 2. */
  concurrent?: number | undefined;
  /** Pixels above which a picture is refused. Default: Pillow's limit. */
  maxPixels?: number | undefined;
};

/** Reads pictures, some at a time. */
type PictureReader = {
  read(image: ImageSource, place: Place): Promise<Tensor<"float32">>;
  close(): Promise<void>;
};

/**
 * What `openDataset` needs for rows with pictures, from a model's processor. Prompts are expanded and completions
 * tokenized as the processor does it; pictures are decoded and preprocessed in a thread of their own in Node, in a browser on
 * the page, where decoding does not hold it up. Close it after its last use.
 * @throws RangeError for options that are no positive integers
 */
export function createRowProcessor(
  processor: Pick<Florence2Processor, "encodePrompt" | "tokenizer" | "imageProcessor">,
  options: RowProcessorOptions = {},
): RowProcessor & { close(): Promise<void> } {
  const { concurrent = 2, maxPixels = MAX_PIXELS } = options;
  for (const [name, value] of Object.entries({ concurrent, maxPixels }))
    if (!Number.isSafeInteger(value) || value < 1)
      throw new RangeError(`${name} must be a positive integer, got ${value}.`);
  const { imageProcessor, tokenizer } = processor;
  const preparation: Preparation = { imageProcessor, maxPixels };
  let reader: Promise<PictureReader> | undefined;
  let closed = false;
  return {
    encodePrompt(prompt, place) {
      try {
        return processor.encodePrompt(prompt);
      } catch (error) {
        throw atRow(error, place);
      }
    },
    encodeCompletion: (text) => tokenizer.encode(text),
    async readPixels(image, place) {
      if (closed) throw closedError();
      reader ??= isNode()
        ? threadReader(preparation, concurrent)
        : Promise.resolve(pageReader(preparation, concurrent));
      return (await reader).read(image, place);
    },
    checkImage: (image, place) => checkRowPicture(image, place, preparation),
    async close() {
      closed = true;
      await (await reader)?.close();
    },
  };
}

const closedError = () =>
  new DataError("The processor of the rows was closed. Close it after its last use.", {
    code: "pictures-closed",
  });

async function threadReader(
  { imageProcessor, maxPixels }: Preparation,
  concurrent: number,
): Promise<PictureReader> {
  const { PictureThread } = await import("./thread/node.ts");
  return new PictureThread({ options: imageProcessor.options, maxPixels }, concurrent);
}

/** Without a thread: `concurrent` at a time, the others in their order. */
export function pageReader(
  preparation: Preparation,
  concurrent: number,
  prepare = preparePicture,
): PictureReader {
  let underWay = 0;
  const queue: { start: () => void; refuse: (error: Error) => void }[] = [];
  return {
    async read(image, place) {
      if (underWay >= concurrent)
        await new Promise<void>((start, refuse) => {
          queue.push({ start, refuse });
        });
      else underWay++;
      try {
        return await prepare(image, place, preparation);
      } finally {
        // The next one takes this one's turn.
        const next = queue.shift();
        if (next) next.start();
        else underWay--;
      }
    },
    async close() {
      for (const { refuse } of queue.splice(0)) refuse(closedError());
    },
  };
}
