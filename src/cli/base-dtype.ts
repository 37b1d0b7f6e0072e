import type { LanguageModel } from "../models/index.ts";
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

/** Quantises the weights of a model's linear layers, if that is asked for; call it when the adapter is in place. */
export async function quantize(
  model: LanguageModel,
  dtype: "fp32" | "int8" | "int4" | undefined,
  output: Output,
): Promise<void> {
  if (dtype === undefined || dtype === "fp32") return;
  const { quantizeWeights } = await import("../quantization/index.ts");
  const { quantized, kept } = await quantizeWeights(model, { dtype });
  const keeping = kept.length > 0 ? `; ${kept.length} stay float32` : "";
  output.note(`base weights: ${dtype} in ${quantized.length} linear layers${keeping}`);
}
