import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { type Cost, estimateCost, type ModuleTree, selectTargets } from "../../../src/selection/index.ts";
import { findSkeleton } from "../../conformance/vector-files.ts";
import { makeMoeTree } from "../peft/moe-tree.ts";

const trees = new Map<string, ModuleTree>(
  [
    ...[
      "edge-mbart",
      "edge-siglip",
      "edge-gpt-oss",
      "gpt2",
      "pythia-70m",
      "t5-small",
      "deberta-v3-small",
      "whisper-tiny",
    ].map((name) => findSkeleton(name, join(import.meta.dirname, "x"))),
    makeMoeTree(3, 4),
  ].map((tree) => [tree.name, tree]),
);

/** Every number of a cost that more adapters can only raise. */
const rising = (cost: Cost): [string, number][] => [
  ["trainable parameters", cost.trainableParameters],
  ["adapter bytes", cost.adapterBytes],
  ["optimizer bytes", cost.optimizerBytes],
  ["forward", cost.forwardFlops.total],
  ["forward of LoRA", cost.forwardFlops.trained],
  ["backward", cost.backwardFlops.total],
  ["backward of attention", cost.backwardFlops.attention],
  ["backward of frozen weights", cost.backwardFlops.frozen],
  ["activations", cost.activationBytes],
  ["less saved of the backward pass", -cost.saved.activationGradientFlops],
  ["less of the forward pass frozen", -cost.saved.frozenForwardShare],
];

test("a target more never costs less", () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...trees.keys()).chain((model) => {
        const tree = trees.get(model)!;
        const names = tree.modules
          .filter(
            ({ kind, name }) => (kind === "linear" || kind === "conv1d_hf") && name !== tree.outputEmbeddings,
          )
          .map(({ name }) => name)
          // as PEFT condenses long lists
          .filter((_, i, all) => i % Math.ceil(all.length / 60) === 0);
        return fc.record({
          model: fc.constant(model),
          names: fc.uniqueArray(fc.constantFrom(...names), { minLength: 2, maxLength: 12 }),
          r: fc.integer({ min: 1, max: 16 }),
        });
      }),
      ({ model, names, r }) => {
        const tree = trees.get(model)!;
        const costOf = (targetModules: string[]) =>
          estimateCost(tree, selectTargets(tree, { r, targetModules }), {
            sequenceLength: 64,
            imageTokens: 32,
          });
        const fewer = rising(costOf(names.slice(1)));
        const more = rising(costOf(names));
        for (const [i, [what, value]] of more.entries()) {
          const before = fewer[i]![1];
          // up to the rounding of sums
          expect(value, `${what}: ${names[0]}`).toBeGreaterThanOrEqual(before - 1e-12 * Math.abs(before));
        }
      },
    ),
    { numRuns: 300 },
  );
});
