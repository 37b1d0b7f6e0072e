import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { getPeftModel, LoraConfig, moduleTreeOf } from "../../../src/adapters/index.ts";
import { nodesOf } from "../../../src/graph/index.ts";
import { estimateCost, type ModuleTree } from "../../../src/selection/index.ts";
import { trainingProgram } from "../../../src/training/program.ts";
import { build, small, withText, withVision } from "../../models/florence2-small.ts";
import { withoutWeights } from "./without-weights.ts";

const image = { height: 33, width: 20 };

/** Nodes that the gradients of adapters add to the forward pass. */
function backwardNodes(
  config: Record<string, unknown>,
  targetModules: string[],
): { backward: number; forward: number } {
  const model = withoutWeights(build(config));
  getPeftModel(model, new LoraConfig({ r: 2, targetModules }));
  const { outputs } = trainingProgram(model, { image });
  const forward = nodesOf([outputs["loss"]!]).length;
  return { forward, backward: nodesOf(Object.values(outputs)).length - forward };
}

const base: ModuleTree = moduleTreeOf(build(small));
const names = base.modules
  .filter(
    ({ kind, name, extra }) =>
      kind === "linear" ||
      (kind === "conv2d" && extra?.groups === 1) ||
      // what PEFT can adapt, and the model reads
      (kind === "embedding" && !/embed_positions|encoder\.embed_tokens/.test(name)),
  )
  .map(({ name }) => name);

/** The model with one layer more at the end of a tower. */
const longer: Readonly<Record<string, Record<string, unknown>>> = {
  "model.vision_tower": withVision({ depths: [1, 3] }),
  "model.language_model.encoder": withText({ encoder_layers: 2 }),
  "model.language_model.decoder": withText({ decoder_layers: 2 }),
};

describe.each(Object.entries(longer))("a layer more at the end of %s", (path, config) => {
  test("costs backward operators if, and only if, adapters are at or below it", { timeout: 60_000 }, () => {
    const seen = new Set<boolean>();
    fc.assert(
      fc.property(fc.uniqueArray(fc.constantFrom(...names), { minLength: 1, maxLength: 3 }), (targets) => {
        const [few, many] = [backwardNodes(small, targets), backwardNodes(config, targets)];
        const tree = moduleTreeOf(build(small));
        const model = withoutWeights(build(small));
        const { selection } = getPeftModel(model, new LoraConfig({ r: 2, targetModules: targets }));
        const tower = estimateCost(tree, selection, { imageSize: [33, 20] }).towers.find(
          (one) => one.path === path,
        )!;
        // the head counts to the decoder, behind all of its layers
        const isHeadAlone = tower.lowestLayer === "lm_head" && !tower.isCrossed;
        const isReached = !isHeadAlone && (tower.lowestLayer !== null || tower.isCrossed);
        seen.add(isReached);
        expect(many.forward).toBeGreaterThan(few.forward);
        expect(many.backward > few.backward, targets.join(", ")).toBe(isReached);
        if (!isReached) {
          expect(many.backward).toBe(few.backward);
          if (isHeadAlone) return;
          expect(tower.backwardFlops!.total).toBe(0);
          expect(tower.activationBytes).toBe(0);
        }
      }),
      { numRuns: 40, examples: [[["lm_head"]]] },
    );
    expect(seen.has(true)).toBe(true);
    expect(seen.has(false)).toBe(true);
  });
});
