import type { PeftModel } from "../adapters/index.ts";
import { collate, type Dataset, IGNORED_LABEL, type Sampler } from "../data/index.ts";
import type { LanguageModel } from "../models/index.ts";
import type { Engine } from "../runtime/index.ts";
import type { BaseWeightsReport } from "./callbacks.ts";
import { objectiveOf } from "./objective.ts";
import type { TrainingOptions } from "./options.ts";
import { quantizeBase } from "./quantize-base.ts";

type Context = {
  readonly model: PeftModel<LanguageModel>;
  readonly engine: Engine;
  readonly settings: TrainingOptions;
  readonly trainDataset: Dataset;
  readonly padTokenId: number;
};

/** Tokens of the example that quantised layers are checked with. */
const CHECKED_TOKENS = 128;

/** Quantises the frozen weights, if that is asked for; the layers are checked with the first example, of a long one its beginning. */
export async function quantizedBase(
  { model, engine, settings, trainDataset, padTokenId }: Context,
  sampler: Sampler,
): Promise<BaseWeightsReport | undefined> {
  const { baseDtype: dtype } = settings;
  if (dtype === "fp32") return undefined;
  const { labels } = objectiveOf(model.baseModel);
  const [first] = sampler.batches();
  const [index] = first!.flat();
  const example = await trainDataset.get(index!);
  const cut = labels === "aligned" ? CHECKED_TOKENS : undefined;
  const short = {
    ...example,
    inputIds: example.inputIds.slice(0, cut),
    labels: example.labels.slice(0, cut),
  };
  const batch = collate([short.labels.slice(1).some((label) => label !== IGNORED_LABEL) ? short : example], {
    padTokenId,
    labels,
  });
  const { report, layers } = await quantizeBase(model.baseModel, { dtype, engine, batch });
  const back = layers.filter(({ quantized }) => !quantized).map(({ path }) => path);
  const partly = layers.filter(
    ({ quantized, rounded, outliers }) =>
      quantized && dtype === "int8" && (!rounded.forward || !rounded.backward || outliers.length > 0),
  );
  return {
    dtype,
    quantized: report.quantized.length - back.length,
    kept: [...report.kept.map(({ path }) => path), ...back],
    partly: partly.map(({ path }) => path),
    bytes: report.bytes,
  };
}
