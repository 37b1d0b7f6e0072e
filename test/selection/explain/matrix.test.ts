/** Counts of entries by layer, differences of selections, and how names are folded. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  compileSelection,
  diffSelections,
  explain,
  foldNames,
  matrixOf,
  numberRanges,
  type SelectionConfig,
  selectTargets,
  structureOf,
} from "../../../src/selection/index.ts";
import { makeTree, skeleton } from "./support.ts";

const llama = skeleton("llama-3.2-1b");
const bart = skeleton("bart-base");
const matrix = (model: string, config: SelectionConfig) =>
  matrixOf(skeleton(model), selectTargets(skeleton(model), config));

describe("matrix", () => {
  test("entries by layer and stack, with those that took nothing", () => {
    const config = {
      targetModules: ["q_proj", "self_attn.q_proj", "fc1", "k_porj", "shared"],
      layersToTransform: [1, 4],
    };
    expect(matrix("bart-base", config)).toEqual({
      stacks: [
        { path: "model.encoder.layers", layers: [0, 1, 2, 3, 4, 5] },
        { path: "model.decoder.layers", layers: [0, 1, 2, 3, 4, 5] },
      ],
      rows: [
        {
          entry: "q_proj",
          option: "targetModules",
          total: 6,
          counts: [
            [0, 1, 0, 0, 1, 0],
            [0, 2, 0, 0, 2, 0],
          ],
          outside: 0,
        },
        // a target counts for the first entry that matches it
        {
          entry: "self_attn.q_proj",
          option: "targetModules",
          total: 0,
          counts: [
            [0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0],
          ],
          outside: 0,
        },
        {
          entry: "fc1",
          option: "targetModules",
          total: 4,
          counts: [
            [0, 1, 0, 0, 1, 0],
            [0, 1, 0, 0, 1, 0],
          ],
          outside: 0,
        },
        {
          entry: "k_porj",
          option: "targetModules",
          total: 0,
          counts: [
            [0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0],
          ],
          outside: 0,
        },
        {
          entry: "shared",
          option: "targetModules",
          total: 0,
          counts: [
            [0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0],
          ],
          outside: 0,
        },
      ],
    });
  });

  const shapes = (model: string, config: SelectionConfig) =>
    matrix(model, config).rows.map(({ entry, part, from, option, total, outside }) => [
      entry,
      part ?? from ?? option,
      total,
      outside,
    ]);

  test("a regex, all-linear and defaults by last name part", () => {
    expect(shapes("gpt2", { targetModules: ".*attn\\.c_.*|lm_head" })).toEqual([
      [".*attn\\.c_.*|lm_head", "c_attn", 12, 0],
      [".*attn\\.c_.*|lm_head", "c_proj", 12, 0],
      [".*attn\\.c_.*|lm_head", "lm_head", 1, 1],
    ]);
    expect(shapes("gpt2", { targetModules: "all-linear" })).toEqual(
      [
        ["c_attn", 12],
        ["c_proj", 24],
        ["c_fc", 12],
      ].map(([part, total]) => ["all-linear", part, total, 0]),
    );
    expect(shapes("gpt2", {})).toEqual([["c_attn", "targetModules", 12, 0]]);
  });

  test("names that PEFT condenses, experts that become parameters, tied layers", () => {
    const names = llama.modules
      .map(({ name }) => name)
      .filter((name) => /layers\.(\d|1[0-3])\..*(q|k)_proj/.test(name));
    expect(
      shapes("llama-3.2-1b", { targetModules: names }).map(([entry, , total]) => [entry, total]),
    ).toEqual(names.map((name) => [name, 1]));
    expect(shapes("mixtral-8x7b", { targetModules: ["q_proj", "w1", "w3"] })).toEqual([
      ["q_proj", "targetModules", 32, 0],
      ["gate_up_proj", ["w1", "w3"], 32, 0],
    ]);
    expect(shapes("llama-3.2-1b", { targetModules: ["embed_tokens"], ensureWeightTying: true })).toEqual([
      ["embed_tokens", "targetModules", 1, 1],
      ["tied to model.embed_tokens", "targetModules", 1, 1],
    ]);
  });

  test("groups, and what the explanations of a refused configuration say", () => {
    const compiled = compileSelection(bart, {
      groups: [
        { targetModules: ["q_proj", "k_porj"], layers: { "encoder.layers": "-1" } },
        { targetModules: "*_proj", layers: { "decoder.layers": 0 }, r: 2 },
      ],
    });
    expect(
      matrixOf(bart, compiled).rows.map(({ entry, part, group, total }) => [entry, part, group, total]),
    ).toEqual([
      ["q_proj", undefined, 0, 1],
      ["k_porj", undefined, 0, 0],
      ["*_proj", "k_proj", 1, 2],
      ["*_proj", "v_proj", 1, 2],
      ["*_proj", "q_proj", 1, 2],
      ["*_proj", "out_proj", 1, 2],
    ]);
    const refused = explain(bart, { targetModules: ["q_proj", "layernorm_embedding"] });
    expect(matrixOf(bart, refused).rows.map(({ entry, total, outside }) => [entry, total, outside])).toEqual([
      ["q_proj", 18, 0],
      ["layernorm_embedding", 2, 2],
    ]);
  });

  test("layers of a replicated model", () => {
    const { stacks, rows } = matrix("llama-3.2-1b", {
      targetModules: ["q_proj"],
      layerReplication: [
        [0, 16],
        [8, 16],
      ],
    });
    expect([stacks[0]!.layers.length, rows[0]!.total]).toEqual([24, 24]);
  });
});

describe("explanations by groups", () => {
  const florence = skeleton("florence2-base");
  const compiled = compileSelection(florence, {
    groups: [
      {
        targetModules: ["q_proj", "v_proj", "!encoder_attn.*"],
        layers: { "encoder.layers": "-2:", "decoder.layers": ":" },
      },
      { name: "vision", targetModules: ["vision_tower.**.qkv"], layers: "last 25%", r: 16 },
    ],
    modulesToSave: ["image_proj_norm"],
  });
  const of = (name: string) => explain(florence, compiled, [name])[0]!;
  const language = "model.language_model";

  test.each([
    [
      `${language}.decoder.layers.3.self_attn.q_proj`,
      true,
      `group 1: the name ends with "q_proj", and layer 3 of ${language}.decoder.layers is in encoder.layers "-2:", decoder.layers ":"`,
    ],
    [
      `${language}.encoder.layers.3.self_attn.q_proj`,
      false,
      `group 1: "q_proj" matched; but layer 3 of ${language}.encoder.layers is not in encoder.layers "-2:", decoder.layers ":"; vision: no entry matches`,
    ],
    [
      `${language}.decoder.layers.3.encoder_attn.q_proj`,
      false,
      'group 1: "q_proj" matched; but "!encoder_attn.*" takes it away; vision: no entry matches',
    ],
    [
      "model.vision_tower.blocks.3.0.spatial_block.window_attn.qkv",
      true,
      'vision: the glob "vision_tower.**.qkv" matches, and layer 3 of model.vision_tower.blocks is in layers "last 25%"',
    ],
    [
      "model.vision_tower.blocks.1.0.spatial_block.window_attn.qkv",
      false,
      'group 1: no entry matches; vision: "vision_tower.**.qkv" matched; but layer 1 of model.vision_tower.blocks is not in layers "last 25%"',
    ],
    ["lm_head", false, "no entry of any group matches"],
    [
      "model.multi_modal_projector.image_proj_norm",
      false,
      'it is, or is inside, "image_proj_norm" of modulesToSave, which is trained as a whole',
    ],
  ])("%s", (name, selected, reason) => {
    expect(of(name)).toMatchObject({ selected, reason });
  });

  test("the group and the entry come as data, and verdicts are those of the compiled configuration", () => {
    expect(of("model.vision_tower.blocks.3.0.spatial_block.window_attn.qkv")).toMatchObject({
      rule: "group",
      group: 1,
      entry: "vision_tower.**.qkv",
      r: 16,
    });
    const taken = explain(florence, compiled).filter(({ selected }) => selected);
    expect(taken.map(({ name }) => name)).toEqual(compiled.selection.targets.map(({ name }) => name));
    expect(taken.every(({ rule }) => rule === "group")).toBe(true);
  });
});

describe("difference of two selections", () => {
  test("targets, values, saved modules and counts, folded over layers", () => {
    const a = {
      targetModules: ["q_proj", "v_proj"],
      layersToTransform: [0, 1, 2, 3],
      r: 4,
      modulesToSave: ["lm_head"],
    };
    const b = {
      targetModules: ["q_proj", "k_proj"],
      r: 4,
      rankPattern: { "layers.3.self_attn.q_proj": 2 },
      trainableTokenIndices: [1, 2],
    };
    const diff = diffSelections(llama, a, b);
    expect(diff.lines).toEqual([
      "- model.layers.{0-3}.self_attn.v_proj (4) r 4, alpha 8, scaling 2",
      "+ model.layers.{0-15}.self_attn.k_proj (16) r 4, alpha 8, scaling 2",
      "+ model.layers.{4-15}.self_attn.q_proj (12) r 4, alpha 8, scaling 2",
      "~ model.layers.3.self_attn.q_proj r 4, alpha 8, scaling 2 → r 2, alpha 8, scaling 4",
      "- lm_head trained as a whole",
      "+ model.embed_tokens some token rows",
      "+ lm_head some token rows",
      expect.stringMatching(/^~ trainable parameters \d+ → \d+$/),
    ]);
    expect([diff.onlyA.length, diff.onlyB.length, diff.changed.length, diff.same, diff.isEmpty]).toEqual([
      4,
      28,
      1,
      3,
      false,
    ]);
    expect(diff.changed[0]).toMatchObject({ a: { r: 4, scaling: 2 }, b: { r: 2, scaling: 4 } });
  });

  test("the side that fails is named", () => {
    expect(() => diffSelections(llama, { targetModules: ["q_proj"] }, { targetModules: ["x"] })).toThrow(
      expect.objectContaining({ code: "no-match", details: expect.objectContaining({ side: "b" }) }),
    );
  });
});

describe("folded names", () => {
  test("ranges of nested lists", () => {
    expect(numberRanges([5, 0, 1, 2, 2])).toBe("0-2,5");
    const names = skeleton("florence2-base")
      .modules.map(({ name }) => name)
      .filter((name) => name.endsWith("spatial_block.window_attn.qkv"));
    expect(
      foldNames([...names, "lm_head"], structureOf(skeleton("florence2-base"))).map(
        ({ text, count }) => `${count} ${text}`,
      ),
    ).toEqual([
      "3 model.vision_tower.blocks.{0-1,3}.0.spatial_block.window_attn.qkv",
      "9 model.vision_tower.blocks.2.{0-8}.spatial_block.window_attn.qkv",
      "1 lm_head",
    ]);
  });

  test("stand for exactly the names that were folded", () => {
    const indices = fc.uniqueArray(
      fc.tuple(fc.nat({ max: 4 }), fc.nat({ max: 4 }), fc.constantFrom("q", "v")),
      { minLength: 1, maxLength: 30, selector: String },
    );
    const all = [0, 1, 2, 3, 4].flatMap((outer) =>
      [0, 1, 2, 3, 4].flatMap((inner) =>
        ["q", "v"].map((part) => [`m.${outer}.b.${inner}.${part}`, "Linear"] as const),
      ),
    );
    const structure = structureOf(makeTree(all));
    const expand = (text: string): string[] => {
      const found = /\{([^}]*)\}/.exec(text);
      if (found === null) return [text];
      const numbers = found[1]!.split(",").flatMap((range) => {
        const [from, to = from] = range.split("-").map(Number) as [number, number?];
        return Array.from({ length: to - from + 1 }, (_, i) => from + i);
      });
      return numbers.flatMap((number) => expand(text.replace(found[0], String(number))));
    };
    fc.assert(
      fc.property(indices, (tuples) => {
        const names = tuples.map(([outer, inner, part]) => `m.${outer}.b.${inner}.${part}`);
        const folded = foldNames(names, structure);
        expect(folded.flatMap(({ text }) => expand(text)).sort()).toEqual([...names].sort());
        for (const { text, count } of folded) expect(expand(text)).toHaveLength(count);
      }),
    );
  });
});
