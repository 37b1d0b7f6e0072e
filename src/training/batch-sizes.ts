import { type Batch, picturesShape } from "../data/index.ts";
import { labelSizes } from "../models/index.ts";

/** Sizes of a graph's dimensions in a batch. */
export const sizesOf = (batch: Batch, vocabSize: number): Record<string, number> => ({
  batch: batch.inputIds.shape[0]!,
  sequence: batch.inputIds.shape[1]!,
  source: batch.inputIds.shape[1]!,
  target: batch.labels.shape[1]!,
  ...labelSizes(vocabSize, Math.max(1, batch.labelTokens)),
  images: picturesShape(batch)?.[0] ?? batch.inputIds.shape[0]!,
});
