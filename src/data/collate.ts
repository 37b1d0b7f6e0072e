import { DataError } from "../errors.ts";
import { tensor } from "../tensor/index.ts";
import { countLabels } from "./stats.ts";
import { type Batch, type Example, IGNORED_LABEL } from "./types.ts";

export type CollateOptions = {
  /** Token to pad with; its attention mask is 0 and its label -100, so which one does not matter to the loss. */
  padTokenId: number;
  /** Where the padding goes. Default "right". */
  side?: "right" | "left";
  /** Round the padded length up to a multiple of this, so that fewer shapes occur. Default 1. */
  padToMultipleOf?: number;
};

/**
 * Pad examples to one length S, the longest of them rounded up to `padToMultipleOf`.
 * Shapes: inputIds, attentionMask, labels [B, S], int64. Labels are not shifted. With padding on the left, the label
 * of an example's first token is -100 if padding stands before it: no real token predicts it, so that the loss does
 * not depend on the side.
 * @throws DataError "collate" for no examples, an empty one, or labels of another length than the ids.
 */
export function collate(examples: readonly Example[], options: CollateOptions): Batch {
  const { padTokenId, side = "right", padToMultipleOf = 1 } = options;
  const fail = (what: string) => new DataError(`collate: ${what}`, { code: "collate" });
  if (examples.length === 0) throw fail("there are no examples. Give at least one.");
  if (!Number.isInteger(padTokenId) || padTokenId < 0)
    throw fail(
      `padTokenId must be a token id, got ${padTokenId}. Use the tokenizer's padTokenId, or 0 if it has none.`,
    );
  if (!Number.isInteger(padToMultipleOf) || padToMultipleOf < 1)
    throw fail(`padToMultipleOf must be a positive integer, got ${padToMultipleOf}.`);
  let longest = 0;
  examples.forEach(({ inputIds, labels, file, line }, i) => {
    const which =
      file === undefined ? `example ${i}` : `example ${i} (${file}${line === undefined ? "" : `:${line}`})`;
    if (inputIds.length === 0) throw fail(`${which} has no tokens.`);
    if (labels.length !== inputIds.length)
      throw fail(
        `${which} has ${labels.length} labels for ${inputIds.length} tokens. They must be equally long.`,
      );
    longest = Math.max(longest, inputIds.length);
  });

  const width = Math.ceil(longest / padToMultipleOf) * padToMultipleOf;
  const shape = [examples.length, width];
  const inputIds = new BigInt64Array(examples.length * width).fill(BigInt(padTokenId));
  const attentionMask = new BigInt64Array(examples.length * width);
  const labels = new BigInt64Array(examples.length * width).fill(BigInt(IGNORED_LABEL));
  let [tokens, labelTokens] = [0, 0];
  examples.forEach((example, row) => {
    const { length } = example.inputIds;
    const start = row * width + (side === "left" ? width - length : 0);
    for (let i = 0; i < length; i++) {
      inputIds[start + i] = BigInt(example.inputIds[i]!);
      attentionMask[start + i] = 1n;
      labels[start + i] = BigInt(example.labels[i]!);
    }
    if (start > row * width) labels[start] = BigInt(IGNORED_LABEL);
    tokens += length;
    labelTokens += countLabels(example.labels);
  });
  return {
    inputIds: tensor("int64", shape, inputIds),
    attentionMask: tensor("int64", shape, attentionMask),
    labels: tensor("int64", shape, labels),
    tokens,
    labelTokens,
  };
}
