import { type Dataset, type Example, IGNORED_LABEL } from "../data/index.ts";
import { DataError } from "../errors.ts";
import type { GenerationOptions, Prompt, TextGenerator } from "../generation/index.ts";
import { CausalLM, type LanguageModel } from "../models/index.ts";
import { scoreTexts, type TextPair, type TextScores } from "./scores.ts";

export type EvaluateTextsOptions = {
  readonly generator: TextGenerator;
  /** Text of tokens; references and generated texts are compared as it gives them. */
  readonly decode: (ids: number[]) => string;
  readonly generation?: GenerationOptions | undefined;
  /** Examples per batch. Default 8. */
  readonly batchSize?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called after every batch with the examples done so far. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
};

export type EvaluatedTexts = {
  readonly scores: TextScores;
  /** What was generated and what it should have been, in the order of the dataset. */
  readonly pairs: readonly TextPair[];
};

/**
 * Has a model write what the examples' labels say, and scores it. A model that continues its input gets an example up to its
 * first label; an encoder–decoder all of its input, and its picture.
 * @throws DataError for an example without a label, or without anything before it; what generation throws.
 */
export async function evaluateTexts(
  model: LanguageModel,
  dataset: Dataset,
  { generator, decode, generation, batchSize = 8, signal, onProgress }: EvaluateTextsOptions,
): Promise<EvaluatedTexts> {
  const pairs: TextPair[] = [];
  for (let start = 0; start < dataset.length; start += batchSize) {
    const count = Math.min(batchSize, dataset.length - start);
    const tasks = await Promise.all(
      Array.from({ length: count }, async (_, i) =>
        taskOf(model, await dataset.get(start + i), dataset.name),
      ),
    );
    const written = await generator.generateBatch(
      tasks.map(({ prompt }) => prompt),
      { ...generation, numReturnSequences: 1 },
      { signal },
    );
    for (const [i, tokens] of written.entries())
      pairs.push({ generated: decode(tokens), reference: decode(tasks[i]!.reference) });
    onProgress?.(start + count, dataset.length);
  }
  return { scores: scoreTexts(pairs), pairs };
}

/** What a model is to be given, and the tokens it is to write. */
function taskOf(
  model: LanguageModel,
  { inputIds, labels, pixelValues, file, line }: Example,
  name: string,
): { prompt: Prompt; reference: number[] } {
  const reference = labels.filter((label) => label !== IGNORED_LABEL);
  const start =
    model instanceof CausalLM ? labels.findIndex((label) => label !== IGNORED_LABEL) : inputIds.length;
  if (reference.length === 0 || start === 0)
    throw new DataError(
      `${file ?? name}${line === undefined ? "" : `:${line}`}: there is nothing to write${reference.length === 0 ? "" : " about"}: generation needs a prompt and a completion. Give rows of {"prompt", "completion"}.`,
      { code: "no-prompt", details: { file, line } },
    );
  return { prompt: { prompt: [...inputIds].slice(0, start), pixelValues }, reference };
}
