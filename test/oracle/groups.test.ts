/** Real PEFT on compiled groups: the same modules, ranks and alphas as the groups took. */
import { describe, expect, test } from "vitest";
import { compileSelection, type GroupedSelection } from "../../src/selection/index.ts";
import { skeleton } from "../selection/synthesize/support.ts";
import { selectOnSkeleton } from "./select-on-skeleton.ts";

const cases: Readonly<Record<string, GroupedSelection[]>> = {
  "florence2-base": [
    {
      groups: [
        { targetModules: ["q_proj", "v_proj"], layers: { "encoder.layers": "-2:", "decoder.layers": ":" } },
      ],
    },
    {
      r: 4,
      groups: [
        { targetModules: ["q_proj", "v_proj"], layers: { "encoder.layers": "last 2" } },
        { targetModules: ["**.decoder.**.{self,encoder}_attn.*", "!out_proj"], r: 16, loraAlpha: 32 },
        { targetModules: ["qkv"], layers: { "blocks.2": "first 50%", "blocks.3": "all" }, r: 2 },
      ],
    },
    { groups: [{ targetModules: ["!vision_tower.**", "!lm_head"], layers: "odd" }] },
  ],
  "whisper-tiny": [
    {
      groups: [
        { targetModules: ["*_proj", "fc?"], layers: { "encoder.layers": "!0", "decoder.layers": "none" } },
      ],
    },
    {
      groups: [
        { targetModules: ["regex:.*encoder_attn\\.[kv]_proj"], layers: "middle 50%" },
        { targetModules: "fc1", layers: -1, r: 16 },
      ],
    },
  ],
  "llama-3.2-1b": [
    { groups: [{ targetModules: ["q_proj", "v_proj"], layers: "last 25%" }] },
    {
      groups: [
        { targetModules: ["all-linear", "!mlp.*"], layers: ":-4" },
        { targetModules: ["mlp.{up,down}_proj"], layers: "-4:", r: 32, loraAlpha: 64 },
        { targetModules: ["lm_head"], r: 2 },
      ],
    },
    {
      r: 16,
      rankPattern: { down_proj: 4 },
      groups: [{ targetModules: ["**.mlp.*"], layers: "::3" }],
      useRslora: true,
    },
  ],
  "t5-small": [
    {
      groups: [
        { targetModules: ["q", "v"], layers: { "encoder.block": "first 2", "decoder.block": "last 2" } },
      ],
    },
    {
      groups: [
        { targetModules: ["EncDecAttention.*"], layers: "even" },
        { targetModules: ["DenseReluDense.w?"], layers: "odd", r: 4 },
      ],
    },
  ],
  "qwen2-vl-2b": [
    { groups: [{ targetModules: ["qkv", "o_proj"], layers: "last 25%" }] },
    {
      groups: [
        { targetModules: ["visual.**.{qkv,proj}"], layers: "30-31", r: 4 },
        {
          targetModules: ["all-linear", "!visual.**"],
          layers: { "language_model.layers": "first 3,last 3" },
          r: 16,
        },
      ],
    },
  ],
};

describe.each(Object.entries(cases))("%s", (name, specs) => {
  test("PEFT selects what the groups take", () => {
    const tree = skeleton(name);
    const compiled = specs.map((spec) => compileSelection(tree, spec));
    const answers = selectOnSkeleton(
      name,
      compiled.map(({ config }) => config),
    );
    compiled.forEach(({ selection, groups }, i) => {
      const taken = new Set(groups.flatMap(({ modules }) => modules));
      const { targets } = answers[i]! as { targets: Record<string, [number, number]> };
      expect(new Set(Object.keys(targets))).toEqual(taken);
      expect(Object.entries(targets).map(([module, [r, alpha]]) => [module, r, alpha])).toEqual(
        selection.targets.map(({ name, r, alpha }) => [name, r, alpha]),
      );
    });
  });
});
