import { join } from "node:path";
import { expect, test } from "vitest";
import { getPeftModel, LoraConfig, moduleTreeOf } from "../../../src/adapters/index.ts";
import { AutoModelForCausalLM } from "../../../src/models/index.ts";
import { quantizeWeights } from "../../../src/quantization/index.ts";
import { estimateCost } from "../../../src/selection/index.ts";

test.each(["int8", "int4"] as const)(
  "%s: frozen weights take what their codes and scales do",
  async (dtype) => {
    for (const name of ["models/tiny-llama", "test/vectors/models/llama-qv/model"]) {
      const model = await AutoModelForCausalLM.fromPretrained(join(import.meta.dirname, "../../..", name));
      const tree = moduleTreeOf(model);
      const peft = getPeftModel(model, new LoraConfig({ r: 4, targetModules: ["q_proj"] }));
      const { bytes, quantized } = await quantizeWeights(model, { dtype, maxError: 1, cacheDirectory: null });
      const replaced = quantized
        .filter(({ linear }) => !(model.tiedEmbeddings && linear.weight.shape[0] === model.vocabSize))
        .reduce((sum, { linear }) => sum + 4 * linear.weight.size, 0);
      const held = (baseDtype: "fp32" | typeof dtype): number =>
        estimateCost(tree, peft.selection, { baseDtype }).memory.frozenBytes;
      expect(held(dtype)).toBe(held("fp32") - replaced + bytes);
    }
  },
);
