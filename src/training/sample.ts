import {
  BatchSampler,
  type Dataset,
  exampleLengths,
  PackedSampler,
  paddingShare,
  type Sampler,
} from "../data/index.ts";
import type { PackingReport } from "./callbacks.ts";
import type { TrainingOptions } from "./options.ts";

/** Which examples a run reads, in which batches. Packing and grouping by length read the whole dataset first. */
export async function sample(
  dataset: Dataset,
  { batchSize, shuffle, seed, groupByLength, packing, packLength: given, padToMultipleOf }: TrainingOptions,
  options: { signal?: AbortSignal } = {},
): Promise<{ sampler: Sampler; packing?: PackingReport }> {
  const { length } = dataset;
  const common = { batchSize, shuffle, seed };
  if (!packing && !groupByLength) return { sampler: new BatchSampler({ ...common, length }) };
  const lengths = await exampleLengths(dataset, options);
  if (!packing) return { sampler: new BatchSampler({ ...common, length, lengths }) };
  const packLength = given ?? lengths.reduce((a, b) => Math.max(a, b), 1);
  const sampler = new PackedSampler({ ...common, lengths, packLength });
  const share = (batches: Sampler): number => paddingShare(batches, lengths, { padToMultipleOf });
  const padding = { without: share(new BatchSampler({ ...common, length })), with: share(sampler) };
  return { sampler, packing: { rows: sampler.rows.length, packLength, padding } };
}
