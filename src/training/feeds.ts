import { type Batch, IGNORED_LABEL } from "../data/index.ts";
import type { CausalLM } from "../models/index.ts";
import { type Tensor, tensor } from "../tensor/index.ts";
import { seededGenerator } from "../tensor/random.ts";

/**
 * What a loss program reads of a batch. Positions count from the first column, padding or not, as transformers does when it
 * is given none. Each label is the target of the place before it.
 */
export function batchFeeds(
  model: CausalLM,
  { inputIds, attentionMask, labels }: Batch,
  lossScale: number,
): Record<string, Tensor> {
  const [batch, sequence] = inputIds.shape as [number, number];
  const places: bigint[] = [];
  const targets: bigint[] = [];
  for (let row = 0; row < batch; row++)
    for (let column = 1; column < sequence; column++) {
      const label = labels.data[row * sequence + column]!;
      if (label === BigInt(IGNORED_LABEL)) continue;
      places.push(BigInt(row * sequence + column - 1));
      targets.push(label);
    }
  const positions = Float32Array.from({ length: batch * sequence }, (_, i) => i % sequence);
  return {
    input_ids: inputIds,
    attention_mask: tensor("float32", attentionMask.shape, Float32Array.from(attentionMask.data, Number)),
    position_ids: tensor("float32", [batch, sequence], positions),
    label_positions: tensor("int64", [places.length], BigInt64Array.from(places)),
    label_targets: tensor("int64", [targets.length], BigInt64Array.from(targets)),
    loss_scale: tensor("float32", [], Float32Array.of(lossScale)),
    ...model.positionFeeds(sequence),
  };
}

/** Random bits for a batch's dropout masks: a function of the seed alone, so that a resumed run repeats them. */
export function noiseFeed({ inputIds: { shape } }: Batch, seed: number): Record<string, Tensor> {
  const generator = seededGenerator(seed);
  const bits = Int32Array.from({ length: shape[0]! * shape[1]! }, () => generator.next());
  return { dropout_noise: tensor("int32", shape, bits) };
}
