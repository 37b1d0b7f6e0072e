import type { Example } from "../data/index.ts";
import type { LanguageModel } from "../models/index.ts";
import type { Engine } from "../runtime/index.ts";
import { choice } from "./flags.ts";
import type { Output } from "./output.ts";

/** For commands that do not train; training has it among its options. */
export const baseDtypeFlag = {
  baseDtype: choice("Precision of the weights of linear layers: fp32, int8 or int4. Default: fp32.", [
    "fp32",
    "int8",
    "int4",
  ]),
};

type Checked = {
  readonly engine: Engine;
  /** What the layers are checked with. */
  readonly example: Example;
  readonly padTokenId: number;
};

/** Quantises the weights of a model's linear layers, if that is asked for; call it when the adapter is in place. */
export async function quantize(
  model: LanguageModel,
  dtype: "fp32" | "int8" | "int4" | undefined,
  output: Output,
  checked: () => Checked | Promise<Checked>,
): Promise<void> {
  if (dtype === undefined || dtype === "fp32") return;
  const { checkedBatch, quantizeBase } = await import("../training/index.ts");
  const { engine, example, padTokenId } = await checked();
  const batch = checkedBatch(model, example, padTokenId);
  const { report, layers } = await quantizeBase(model, { dtype, engine, batch });
  const back = layers.filter(({ quantized }) => !quantized).length;
  const kept = report.kept.length + back;
  const keeping = kept > 0 ? `; ${kept} stay float32` : "";
  output.note(`base weights: ${dtype} in ${report.quantized.length - back} linear layers${keeping}`);
}
