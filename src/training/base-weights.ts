import type { PeftModel } from "../adapters/index.ts";
import { type Batch, collate, type Dataset, IGNORED_LABEL, type Sampler } from "../data/index.ts";
import type { LanguageModel } from "../models/index.ts";
import { decide, isException, type QuantizationReport, quantizeWeights } from "../quantization/index.ts";
import type { Engine } from "../runtime/index.ts";
import type { BaseWeightsReport } from "./callbacks.ts";
import { objectiveOf } from "./objective.ts";
import type { TrainingOptions } from "./options.ts";
import { quantizeBase } from "./quantize-base.ts";
import type { TrainerState } from "./state.ts";

type Context = {
  readonly model: PeftModel<LanguageModel>;
  readonly engine: Engine;
  readonly settings: TrainingOptions;
  readonly trainDataset: Dataset;
  readonly padTokenId: number;
};

/** Tokens of the example that quantised layers are checked with. */
const CHECKED_TOKENS = 128;

/**
 * Quantises the frozen weights, if that is asked for. The layers are checked once in a run, when it begins: what is decided then goes
 * into its state, for it would come out otherwise with adapters that have been trained.
 */
export async function quantizedBase(
  context: Context,
  sampler: Sampler,
  state: TrainerState,
): Promise<BaseWeightsReport | undefined> {
  const { model, engine, settings } = context;
  const { baseDtype: dtype } = settings;
  if (dtype === "fp32") return undefined;
  let report: QuantizationReport;
  if (state.checkedLayers) {
    report = await quantizeWeights(model.baseModel, { dtype });
    const known = new Map(state.checkedLayers.map((decision) => [decision.path, decision]));
    for (const layer of report.quantized) {
      const decision = known.get(layer.path);
      if (decision) await decide(layer, decision);
    }
  } else {
    const batch = await checkedBatch(context, sampler);
    const checked = await quantizeBase(model.baseModel, { dtype, engine, batch });
    report = checked.report;
    state.checkedLayers = checked.layers
      .filter(isException)
      .map(({ path, quantized, rounded, outliers }) => ({
        path,
        quantized,
        rounded,
        outliers: [...outliers],
      }));
  }
  const pathsOf = (quantized: boolean): string[] =>
    state.checkedLayers!.filter((layer) => layer.quantized === quantized).map(({ path }) => path);
  const back = pathsOf(false);
  return {
    dtype,
    quantized: report.quantized.length - back.length,
    kept: [...report.kept.map(({ path }) => path), ...back],
    partly: pathsOf(true),
    bytes: report.bytes,
  };
}

/** The first example, of a long one its beginning. */
async function checkedBatch({ model, trainDataset, padTokenId }: Context, sampler: Sampler): Promise<Batch> {
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
  const hasLabels = short.labels.slice(1).some((label) => label !== IGNORED_LABEL);
  return collate([hasLabels ? short : example], { padTokenId, labels });
}
