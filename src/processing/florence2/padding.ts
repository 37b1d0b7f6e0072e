import { DataError } from "../../errors.ts";
import { type Tensor, tensor } from "../../tensor/index.ts";

export type PaddingOptions = {
  /** To the longest text, or to `maxLength`; false (the default) for texts of one length. */
  padding?: boolean | "longest" | "max_length";
  /** Cut longer texts at `maxLength`. Default false. */
  truncation?: boolean;
  /** Default: the tokenizer's `model_max_length`. */
  maxLength?: number;
  padToMultipleOf?: number;
  /** Default "right". */
  paddingSide?: "left" | "right";
};

export type PaddedIds = { inputIds: Tensor<"int64">; attentionMask: Tensor<"int64"> };

/**
 * Token ids as tensors [B, S], with the options of a Hugging Face tokenizer.
 * @throws DataError "ragged-batch" if the texts differ in length and may not be padded, "no-max-length", "no-pad-token"
 */
export function padIds(
  rows: readonly (readonly number[])[],
  options: PaddingOptions,
  padTokenId: number | undefined,
): PaddedIds {
  const { padding = false, maxLength, padToMultipleOf = 1, paddingSide = "right" } = options;
  const longest = Math.max(...rows.map((row) => row.length));
  let length = longest;
  if (padding === "max_length") length = Math.max(longest, requireMaxLength(maxLength));
  if (padding !== false) length = Math.ceil(length / padToMultipleOf) * padToMultipleOf;
  if (padding === false && rows.some((row) => row.length !== longest))
    throw new DataError(
      `The texts have ${rows.map((row) => row.length).join(", ")} tokens, so they do not fit into one batch. Give padding: true.`,
      { code: "ragged-batch", details: { lengths: rows.map((row) => row.length) } },
    );
  if (padTokenId === undefined && rows.some((row) => row.length !== length))
    throw new DataError("The tokenizer has no pad token. Process the texts one by one.", {
      code: "no-pad-token",
    });
  const shape = [rows.length, length];
  const ids = new BigInt64Array(rows.length * length).fill(BigInt(padTokenId ?? 0));
  const mask = new BigInt64Array(rows.length * length);
  rows.forEach((row, i) => {
    const start = i * length + (paddingSide === "left" ? length - row.length : 0);
    ids.set(row.map(BigInt), start);
    mask.fill(1n, start, start + row.length);
  });
  return { inputIds: tensor("int64", shape, ids), attentionMask: tensor("int64", shape, mask) };
}

function requireMaxLength(maxLength: number | undefined): number {
  if (maxLength !== undefined) return maxLength;
  throw new DataError('padding: "max_length" needs a length, and the tokenizer names none. Give maxLength.', {
    code: "no-max-length",
  });
}
