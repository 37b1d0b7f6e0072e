import { type Dim, dimMultiply, input, op, type Value } from "../graph/index.ts";
import { type Tensor, tensor } from "../tensor/index.ts";
import { type CausalLM, causalInputs, packedInputs } from "./causal-lm.ts";
import { type LabelledLoss, labelFeeds, labelledLoss } from "./labelled-loss.ts";
import { type DropoutOptions, IGNORED, randomBits, toMask } from "./loss.ts";

/** A batch of texts to learn to continue. */
export type CausalBatch = {
  readonly inputIds: Tensor<"int64">; // [batch, sequence]
  readonly attentionMask: Tensor<"int64">; // [batch, sequence], 1 for real tokens
  readonly labels: Tensor<"int64">; // [batch, sequence], not shifted, -100 where nothing is learned
  /** Of packed rows, [batch, sequence]: which of a row's texts each token belongs to, 0 for padding, and its position in it. */
  readonly segments?: Tensor<"int64">;
  readonly positionIds?: Tensor<"int64">;
};

/** Which loss of causal models: of rows with a text each, or of packed ones. */
export type CausalLossOptions = DropoutOptions & {
  readonly packed?: boolean;
  readonly attentionBlocks?: number;
};

/**
 * Loss of a batch: loss_scale · Σ over labelled positions of -ln p(target).
 * Only labelled positions reach the vocabulary product: their hidden rows are gathered first, so tokens without a label
 * cost no logits.
 * With `packed`, rows hold several texts, which do not see each other; the model's inputs are those of `packedInputs`.
 * Inputs besides the model's: those of `LabelledLoss` (`loss_scale` is 1 / number of labels of the whole step, so that gradients of
 * accumulated batches add up to the mean's), and with dropout random int32 `dropout_noise` [batch, sequence].
 */
export const causalLoss = (model: CausalLM, options: CausalLossOptions = {}): Value =>
  causalLabelledLoss(model, options).total;

/** The same loss as a function of the labelled rows. */
export function causalLabelledLoss(
  model: CausalLM,
  { dropout = false, modelDropout = true, packed = false, attentionBlocks = 1 }: CausalLossOptions = {},
): LabelledLoss {
  const inputs = packed ? packedInputs() : causalInputs();
  const [batch, sequence] = inputs.inputIds.shape as [Dim, Dim];
  const tokens = dimMultiply(batch, sequence);
  const noise = dropout ? [op.reshape(input("dropout_noise", "int32", [batch, sequence]), [tokens])] : [];
  return labelledLoss(model, {
    noise,
    ofLabels: noise[0],
    ofModel: modelDropout,
    hidden: () => {
      const { hidden } = model.hiddenStates({ ...inputs, attentionBlocks });
      return op.reshape(hidden, [tokens, hidden.shape[2]!]);
    },
  });
}

/**
 * What the graph inputs of `causalLoss` are fed. Positions count from the first column, padding or not, as transformers does
 * when it is given none; in packed rows, from each text's first token. Each label is the target of the place before it.
 */
export function causalFeeds(
  model: CausalLM,
  { inputIds, attentionMask, labels, segments, positionIds }: CausalBatch,
  { lossScale }: { lossScale: number },
): Record<string, Tensor> {
  const [batch, sequence] = inputIds.shape as [number, number];
  const places: bigint[] = [];
  const targets: bigint[] = [];
  for (let row = 0; row < batch; row++)
    for (let column = 1; column < sequence; column++) {
      const label = labels.data[row * sequence + column]!;
      if (label === IGNORED) continue;
      places.push(BigInt(row * sequence + column - 1));
      targets.push(label);
    }
  const positions = positionIds
    ? Float32Array.from(positionIds.data, Number)
    : Float32Array.from({ length: batch * sequence }, (_, i) => i % sequence);
  const longest = positionIds ? positions.reduce((a, b) => Math.max(a, b)) + 1 : sequence;
  return {
    input_ids: inputIds,
    ...(segments ? { segment_ids: segments } : { attention_mask: toMask(attentionMask) }),
    position_ids: tensor("float32", [batch, sequence], positions),
    ...labelFeeds(model.vocabSize, places, targets, lossScale),
    ...model.positionFeeds(longest),
  };
}

/** Random bits for a batch's dropout masks. */
export const causalNoise = ({ inputIds: { shape } }: CausalBatch, seed: number): Record<string, Tensor> =>
  randomBits({ dropout_noise: shape }, seed);
