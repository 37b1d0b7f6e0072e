import type { PeftModel } from "../adapters/index.ts";
import type { Dataset, Sampler } from "../data/index.ts";
import type { LanguageModel } from "../models/index.ts";
import { decide, isException, type QuantizationReport, quantizeWeights } from "../quantization/index.ts";
import type { Engine } from "../runtime/index.ts";
import type { BaseWeightsReport } from "./callbacks.ts";
import type { TrainingOptions } from "./options.ts";
import { checkedBatch, quantizeBase } from "./quantize-base.ts";
import type { TrainerState } from "./state.ts";

type Context = {
  readonly model: PeftModel<LanguageModel>;
  readonly engine: Engine;
  readonly settings: TrainingOptions;
  readonly trainDataset: Dataset;
  readonly padTokenId: number;
};

/**
 * Quantises the frozen weights, if that is asked for. The layers are checked with the first example, once in a run, when it begins: what is decided then goes
 * into its state, for it would come out otherwise with adapters that have been trained.
 */
export async function quantizedBase(
  { model, engine, settings, trainDataset, padTokenId }: Context,
  sampler: Sampler,
  state: TrainerState,
): Promise<BaseWeightsReport | undefined> {
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
    const [first] = sampler.batches();
    const [index] = first!.flat();
    const batch = checkedBatch(model.baseModel, await trainDataset.get(index!), padTokenId);
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
