import { GraftError, nearest } from "../errors.ts";
import { CausalLM, ImageTextToTextLM, type LanguageModel } from "../models/index.ts";
import { type Florence2Processor, florence2Tasks, type ImageInput, readImage } from "../processing/index.ts";
import type { Tensor } from "../tensor/index.ts";
import type { Source } from "./decoding.ts";

/** What generation needs of a tokenizer. */
export type TextCodec = {
  encode(text: string): number[];
  decode(ids: number[], options?: { skipSpecialTokens?: boolean }): string;
  /** Whether `encode` puts the end-of-sequence token behind every text; a prompt that is continued goes without. */
  readonly addsEos?: boolean;
};

/** A text or its tokens; for a model that reads pictures, with a picture. */
export type Prompt = string | readonly number[] | PicturePrompt;

export type PicturePrompt = {
  /** A task's token with its text, any other text, or tokens with the picture's placeholders in place. */
  readonly prompt: string | readonly number[];
  readonly image?: ImageInput | undefined;
  /** Preprocessed pictures instead: [channels, height, width], or [images, channels, height, width] for several. */
  readonly pixelValues?: Tensor<"float32"> | undefined;
};

/** A prompt as the model takes it, and what its answer is to be read with. */
export type ReadPrompt = Source & {
  /** The token of the task, if it is one of the processor's. */
  readonly task?: string | undefined;
  /** Size of the picture as it was given, in pixels. */
  readonly image?: { readonly width: number; readonly height: number };
};

type Readers = {
  readonly model: LanguageModel;
  readonly tokenizer: TextCodec | undefined;
  readonly processor: Florence2Processor | undefined;
};

/**
 * @throws GraftError if a text comes without a tokenizer, a picture without a processor or for a model that reads none, or
 * no picture for a model that does; DataError for a picture that cannot be read or a prompt that its task does not take
 */
export async function readPrompt(
  given: Prompt,
  { model, tokenizer, processor }: Readers,
): Promise<ReadPrompt> {
  const { prompt, image, pixelValues } = asPicturePrompt(given);
  const hasPicture = image !== undefined || pixelValues !== undefined;
  const reads = model instanceof ImageTextToTextLM;
  if (hasPicture && !reads)
    throw new GraftError(
      `There is a picture, and a model of type ${model.modelType} reads text alone. Leave the picture out, or take a model that reads pictures.`,
      { code: "no-pictures", details: { modelType: model.modelType } },
    );
  if (reads && !processor && (typeof prompt === "string" || image !== undefined))
    throw new GraftError(
      "A text or a picture for a model that reads pictures needs a processor: pass one to TextGenerator.create, or give token ids and pixelValues.",
      { code: "no-processor" },
    );
  if (reads && typeof prompt === "string" && !hasPicture)
    throw new GraftError(
      `A model of type ${model.modelType} is asked about a picture, and there is none. Give the prompt with its picture, { prompt, image }.`,
      { code: "no-image", details: { modelType: model.modelType } },
    );
  const tokens =
    typeof prompt !== "string"
      ? prompt
      : processor && reads
        ? processor.encodePrompt(prompt)
        : encodeText(prompt, { model, tokenizer });
  const task = typeof prompt === "string" && reads ? taskOf(prompt) : undefined;
  if (image === undefined) return { tokens, task, pixelValues };
  const picture = await readImage(
    image,
    typeof image === "string" && image.length < 200 ? { name: image } : {},
  );
  return {
    tokens,
    task,
    pixelValues: processor!.imageProcessor.preprocessBatch([picture]),
    image: { width: picture.width, height: picture.height },
  };
}

const asPicturePrompt = (given: Prompt): PicturePrompt =>
  typeof given === "object" && "prompt" in given ? given : { prompt: given };

function encodeText(text: string, { model, tokenizer }: Omit<Readers, "processor">): number[] {
  if (!tokenizer)
    throw new GraftError(
      "A text prompt needs a tokenizer: pass one to TextGenerator.create, or give token ids.",
      { code: "no-tokenizer" },
    );
  const ids = tokenizer.encode(text);
  return tokenizer.addsEos && model instanceof CausalLM ? ids.slice(0, -1) : ids;
}

/** The task whose token is in a prompt. */
export const taskOf = (prompt: string): string | undefined =>
  Object.keys(florence2Tasks).find((task) => prompt.includes(task));

/**
 * What looks like a task's token at the beginning of a prompt and is none, with the tasks it may be meant for. Models are
 * tuned for tasks of their own too, so that it need not be a mistake.
 */
export function unknownTask(
  prompt: string,
  isToken: (text: string) => boolean = () => false,
): { token: string; nearest: string[] } | undefined {
  const token = /^\s*(<[A-Za-z][\w ]*>)/.exec(prompt)?.[1];
  if (token === undefined || taskOf(prompt) !== undefined || isToken(token)) return undefined;
  return {
    token,
    nearest: nearest(token.toUpperCase().replaceAll(" ", "_"), Object.keys(florence2Tasks), 1),
  };
}

/** Text of tokens for people: without what marks its beginning and end, with locations in the picture. */
export function decoderOf({
  tokenizer,
  processor,
}: Pick<Readers, "tokenizer" | "processor">): ((ids: number[]) => string) | undefined {
  if (processor) {
    const { bosTokenId, eosTokenId, padTokenId } = processor.tokenizer;
    const marks = [bosTokenId, eosTokenId, padTokenId];
    return (ids) => {
      const said = ids.filter((id) => !marks.includes(id));
      return said.length === 0 ? "" : processor.tokenizer.decode(said);
    };
  }
  return tokenizer && ((ids) => tokenizer.decode(ids, { skipSpecialTokens: true }));
}
