import { describe, expect, test } from "vitest";
import { SelectionError } from "../../../src/errors.ts";
import { type ModuleTree, type SelectionConfig, selectTargets } from "../../../src/selection/index.ts";
import { synthesize } from "../../../src/selection/synthesize/index.ts";
import { makeMoeTree } from "../peft/moe-tree.ts";
import { adaptableNames, skeleton } from "./support.ts";

const llama = skeleton("llama-3.2-1b");
const bert = skeleton("bert-base-seqcls");

const namesOf = (tree: ModuleTree, wanted: RegExp): string[] =>
  adaptableNames(tree).filter((name) => wanted.test(name));

function errorOf(run: () => unknown): SelectionError {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(SelectionError);
    return error as SelectionError;
  }
  throw new Error("nothing was thrown");
}

describe("the rest of the configuration", () => {
  const queries = namesOf(llama, /q_proj$/);

  test("is kept, what selects is replaced", () => {
    const base: SelectionConfig = {
      targetModules: "all-linear",
      r: 4,
      useRslora: true,
      rankPattern: { q_proj: 2 },
      bias: "lora_only",
    };
    const { config, selection } = synthesize(llama, queries, { base });
    expect(config).toEqual({ ...base, targetModules: ["q_proj"] });
    expect(new Set(selection.targets.map(({ r }) => r))).toEqual(new Set([2]));
  });

  test("what it excludes need not be told apart", () => {
    const names = namesOf(bert, /dense$/).filter((name) => !name.includes("pooler"));
    expect(synthesize(bert, names).config.targetModules).toEqual(["intermediate.dense", "output.dense"]);
    const base: SelectionConfig = { modulesToSave: ["pooler"] };
    expect(synthesize(bert, names, { base }).config).toEqual({ ...base, targetModules: ["dense"] });
  });

  test("a list of exclusions grows; a regex stays as it is", () => {
    const names = queries.filter((name) => !/layers\.[37]\./.test(name));
    const grown = synthesize(llama, names, { base: { excludeModules: ["layers.3.self_attn.q_proj"] } });
    expect(grown.config).toEqual({
      targetModules: ["q_proj"],
      excludeModules: ["layers.3.self_attn.q_proj", "layers.7.self_attn.q_proj"],
    });
    const regex = ".*\\.3\\..*";
    const kept = synthesize(llama, names, { base: { excludeModules: regex } });
    expect(kept.config).toMatchObject({ targetModules: ["q_proj"], excludeModules: regex });
    expect(kept.form).toBe("list+layers");
  });

  test("the head of a classification task is saved, so all-linear leaves it out", () => {
    const { config } = synthesize(bert, namesOf(bert, /query|key|value|dense/), {
      base: { taskType: "SEQ_CLS" },
    });
    expect(config).toEqual({ taskType: "SEQ_CLS", targetModules: "all-linear" });
  });

  test("tied modules come together", () => {
    const base: SelectionConfig = { ensureWeightTying: true };
    const { selection } = synthesize(llama, ["model.embed_tokens", "lm_head"], { base });
    expect(selection.targets.map(({ name, reason }) => [name, reason.rule])).toEqual([
      ["model.embed_tokens", "name"],
      ["lm_head", "tied"],
    ]);
    const alone = errorOf(() => synthesize(llama, ["model.embed_tokens"], { base }));
    expect(alone.code).toBe("not-expressible");
    expect(alone.details).toMatchObject({ extra: ["lm_head"], missing: [] });
  });

  test("parameters keep their ranks", () => {
    const tree = skeleton("edge-gpt-oss");
    const base: SelectionConfig = { r: 32, loraAlpha: 8, targetParameters: ["gate_up_proj"] };
    const wanted = new Map(
      namesOf(tree, /[qk]_proj$/).map((name) => [name, { r: name.endsWith("q_proj") ? 4 : 16, alpha: 8 }]),
    );
    const { config, selection } = synthesize(tree, wanted, { base });
    expect(config.rankPattern).toEqual({ k_proj: 16, gate_up_proj: 32 });
    expect(new Set(selection.targetParameters.map(({ r }) => r))).toEqual(new Set([32]));
    expect(synthesize(tree, [], { base }).selection.targetParameters).toHaveLength(3);
  });

  test("replicated layers have the names that PEFT gives them", () => {
    const base: SelectionConfig = {
      layerReplication: [
        [0, 16],
        [8, 16],
      ],
    };
    const names = ["model.layers.20.self_attn.q_proj", "model.layers.21.self_attn.q_proj"];
    expect(synthesize(llama, names, { base }).config).toMatchObject({
      targetModules: ["q_proj"],
      layersToTransform: [20, 21],
    });
    expect(errorOf(() => synthesize(llama, names)).code).toBe("unknown-module");
  });

  test("neither it nor the tree is changed", () => {
    const base = Object.freeze({ excludeModules: Object.freeze(["layers.3.self_attn.q_proj"]) });
    const before = JSON.stringify(llama);
    synthesize(llama, queries.slice(4), { base });
    expect(JSON.stringify(llama)).toBe(before);
  });
});

describe("what cannot be", () => {
  test("all unknown and unsupported names are told, with the nearest ones and the kinds", () => {
    const error = errorOf(() =>
      synthesize(llama, [
        "model.layers.3.self_attn.q_prj",
        "model.norm",
        "model.layers",
        "lm_haed",
        "lm_head",
      ]),
    );
    expect(error.code).toBe("unknown-module");
    expect(error.details).toEqual({
      unknown: [
        {
          name: "model.layers.3.self_attn.q_prj",
          nearest: expect.arrayContaining(["model.layers.3.self_attn.q_proj"]) as string[],
        },
        { name: "lm_haed", nearest: ["lm_head"] },
      ],
      unsupported: [
        { name: "model.norm", kind: "norm", className: "LlamaRMSNorm" },
        { name: "model.layers", kind: "modulelist", className: "ModuleList" },
      ],
    });
    expect(error.message).toContain("4 of the wanted modules cannot be adapted");
  });

  test("only unsupported ones", () => {
    const mamba = skeleton("mamba-130m");
    const names = ["backbone.layers.0.mixer.out_proj", "backbone.layers.1.mixer.conv1d", "backbone.norm_f"];
    const error = errorOf(() => synthesize(mamba, names));
    expect(error.code).toBe("unsupported-module");
    expect((error.details["unsupported"] as { name: string }[]).map(({ name }) => name)).toEqual(names);
  });

  test("nothing", () => {
    expect(errorOf(() => synthesize(llama, [])).code).toBe("not-expressible");
  });

  test("what is excluded or saved, by which entry", () => {
    const base: SelectionConfig = { excludeModules: ["v_proj"], modulesToSave: ["lm_head"] };
    const error = errorOf(() => synthesize(llama, namesOf(llama, /v_proj$|lm_head/), { base }));
    expect(error.code).toBe("not-expressible");
    expect(error.details["problems"]).toEqual([
      '"model.layers.0.self_attn.v_proj" and 15 more: excluded by excludeModules "v_proj"',
      '"lm_head": it is, or is inside, "lm_head" of modulesToSave, which is trained as a whole',
    ]);
  });

  test("old names of stacked experts", () => {
    const tree = makeMoeTree(2, 2, "deepseek_v3");
    const error = errorOf(() => synthesize(tree, namesOf(tree, /q_proj|down_proj/)));
    expect(error.code).toBe("not-expressible");
    expect(error.message).toContain('PEFT takes "down_proj" for stacked parameters');
    expect(synthesize(tree, namesOf(tree, /1\..*q_proj/)).config).toEqual({
      targetModules: ["q_proj"],
      layersToTransform: [1],
    });
  });

  test("what PEFT refuses for other reasons, with these reasons", () => {
    const error = errorOf(() => synthesize(llama, namesOf(llama, /q_proj$/), { base: { r: 0 } }));
    expect(error.code).toBe("not-expressible");
    expect(error.details["refusal"]).toBe("rank-not-positive");
  });
});

describe("a deeper sibling", () => {
  const deeperOf = (model: string, wanted: RegExp) => {
    const tree = skeleton(model);
    return synthesize(tree, namesOf(tree, wanted)).deeper;
  };

  test("all layers stay all layers", () => {
    const { same, message, added } = deeperOf("llama-3.2-1b", /[qv]_proj$/);
    expect(same).toBe(false);
    expect(added).toHaveLength(16);
    expect(added[0]).toBe("model.layers.16.self_attn.q_proj");
    expect(message).toBe(
      "On a deeper model of this kind it would also take q_proj and v_proj in the new layers of model.layers (all layers stay all layers).",
    );
  });

  test("layers by number stay these layers", () => {
    expect(deeperOf("llama-3.2-1b", /layers\.1[2-5]\..*q_proj$/)).toMatchObject({
      same: true,
      added: [],
      missing: [],
      message:
        "On a deeper model of this kind it takes the same numbered layers, none of the new ones: layers 12–15 of model.layers.",
    });
  });

  test("both, by tower", () => {
    expect(
      deeperOf("florence2-base", /language_model\.(?:decoder|encoder\.layers\.[45])\..*[qv]_proj$/).message,
    ).toBe(
      "On a deeper model of this kind it would also take q_proj and v_proj in the new layers of " +
        "model.language_model.decoder.layers (all layers stay all layers). It stays with layers 4, 5 of " +
        "model.language_model.encoder.layers, by number: none of the new ones.",
    );
  });

  test("odd layers of a regex", () => {
    const { added, message } = deeperOf(
      "llama-3.2-1b",
      /layers\.\d*[13579]\..*[qv]_proj$|layers\.1[0-5]\..*down_proj$/,
    );
    expect(added.map((name) => name.split(".")[2])).toEqual(["17", "17", "19", "19", "21", "21", "23", "23"]);
    expect(message).toContain("q_proj and v_proj in the new layers 17, 19, 21, 23 of model.layers");
  });

  test("modules outside layers", () => {
    expect(deeperOf("llama-3.2-1b", /lm_head/)).toMatchObject({
      same: true,
      message:
        "On a deeper model of this kind it takes the same modules: none of them is in a repeated layer.",
    });
  });
});

test("a large mixture of experts", () => {
  const tree = makeMoeTree(58, 256);
  const some = namesOf(tree, /layers\.(?:5|40)\..*experts\.\d\d\.(?:up|down)_proj$/);
  const { config, selection } = synthesize(tree, some);
  expect(config.targetModules).toBe(
    ".*\\.layers\\.(?:5|40)\\.mlp\\.experts\\.[1-9]\\d\\.(down_proj|up_proj)",
  );
  expect(selection.targets).toHaveLength(360);
  const scattered = adaptableNames(tree).filter((_, i) => (i * 2654435761) % 97 < 3);
  const proof = selectTargets(tree, synthesize(tree, scattered).config);
  expect(proof.targets.map(({ name }) => name)).toEqual(scattered);
});
