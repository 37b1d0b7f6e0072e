import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ReferenceCase } from "../support/reference-case.ts";
import { type ErrorDocument, graft, scratch, tinyLlama, vectors } from "./support.ts";

const directory = scratch();
const florence = join(vectors, "skeletons/florence2-base.json.gz");

type Selected = {
  targets: { name: string; r: number; alpha: number }[];
  config: Record<string, unknown>;
  warnings: { code: string; message: string }[];
};
const select = async (...args: string[]): Promise<Selected> => {
  const { code, stderr, json } = await graft(["select", ...args, "--json"]);
  expect(code, stderr).toBe(0);
  return json<Selected>();
};
const namesOf = ({ targets }: Selected): string[] => targets.map(({ name }) => name);
const file = (name: string, content: string): string => {
  const path = join(directory, name);
  writeFileSync(path, content);
  return path;
};

describe("select with --layers", () => {
  test("by tower, and the printed configuration alone selects the same", async () => {
    const selected = await select(
      ...[florence, "--target-modules", "q_proj,v_proj"],
      ...["--layers", "encoder.layers=-2:", "--layers", "decoder.layers=:"],
    );
    const names = namesOf(selected);
    expect(names).toHaveLength(28);
    expect(names.filter((name) => name.includes("encoder.layers"))).toEqual(
      [4, 5].flatMap((layer) =>
        ["v", "q"].map((x) => `model.language_model.encoder.layers.${layer}.self_attn.${x}_proj`),
      ),
    );
    expect(selected.warnings).toEqual([]);
    const compiled = file("florence.json", JSON.stringify(selected.config));
    expect(namesOf(await select(florence, "--config", compiled))).toEqual(names);
  });

  test("several for one list unite; globs and negatives; PEFT's other options", async () => {
    const selected = await select(
      ...[tinyLlama, "--target-modules", "**.self_attn.*,!o_proj,mlp.{up,down}_proj"],
      ...["--layers", "layers=0", "--layers", "layers=-1", "--exclude-modules", "k_*", "--r", "16"],
      ...["--rank-pattern", "up_proj=4", "--use-rslora"],
    );
    expect(selected.targets.map(({ name, r }) => [name.replace("model.layers.", ""), r])).toEqual(
      [0, 5].flatMap((layer) => [
        [`${layer}.self_attn.q_proj`, 16],
        [`${layer}.self_attn.v_proj`, 16],
        [`${layer}.mlp.up_proj`, 4],
        [`${layer}.mlp.down_proj`, 16],
      ]),
    );
    expect(selected.config).toMatchObject({ use_rslora: true, peft_type: "LORA" });
  });

  test("over an adapter_config.json, whose modules stay", async () => {
    const config = file(
      "adapter_config.json",
      JSON.stringify({ peft_type: "LORA", target_modules: ".*\\.[qv]_proj", r: 3 }),
    );
    const selected = await select(tinyLlama, "--config", config, "--layers", "last 1");
    expect(selected.targets).toMatchObject([
      { name: "model.layers.5.self_attn.q_proj", r: 3 },
      { name: "model.layers.5.self_attn.v_proj", r: 3 },
    ]);
  });
});

const yaml = `r: 4
lora_alpha: 8
groups:
  - name: attention
    target_modules: [q_proj, "*.v_proj"]
    layers: { layers: "-2:" }
  - target_modules: down_proj
    layers: first 50%
    r: 16
    lora_alpha: 32
`;
const wanted = [
  ...[0, 1, 2].map((layer) => [`model.layers.${layer}.mlp.down_proj`, 16, 32]),
  ...[4, 5].flatMap((layer) =>
    ["q_proj", "v_proj"].map((leaf) => [`model.layers.${layer}.self_attn.${leaf}`, 4, 8]),
  ),
];

describe("select with a file of groups", () => {
  test("YAML, and the same as JSON", async () => {
    const { parse } = await import("yaml");
    for (const path of [
      file("graft.yaml", yaml),
      file("graft.yml", yaml),
      file("graft.json", JSON.stringify(parse(yaml))),
    ]) {
      const { targets, warnings } = await select(tinyLlama, "--config", path);
      expect(targets.map(({ name, r, alpha }) => [name, r, alpha])).toEqual(wanted);
      expect(warnings).toEqual([]);
    }
  });

  test("flags change what is not the groups' own", async () => {
    const path = file("graft.yaml", yaml);
    const { targets } = await select(
      ...[tinyLlama, "--config", path, "--lora-alpha", "2", "--exclude-modules", "layers.0.**"],
    );
    expect(targets.map(({ name, alpha }) => [name, alpha])).toEqual(
      wanted.slice(1).map(([name, r]) => [name, r === 16 ? 32 : 2]),
    );
  });

  test("an ordinary configuration as YAML", async () => {
    const path = file("plain.yaml", "peft_type: LORA\ntarget_modules: [q_proj]\nlayers_to_transform: [1]\n");
    const { config, targets } = await select(tinyLlama, "--config", path);
    expect(targets).toHaveLength(1);
    expect(config).toMatchObject({ target_modules: ["q_proj"], layers_to_transform: [1] });
  });
});

describe("says what is wrong", () => {
  const groups = file("groups.yaml", yaml);
  const tagged = file("tagged.yaml", "groups:\n  - target_modules: [all-linear, !lm_head]\n");
  const wrong = file("wrong.yaml", "r: x\ngroups:\n  - target_modules: 3\n    r: 0\n  - layers: last 2\n");
  test.each([
    [
      ["--layers", "-1", "--layers-to-transform", "1", "--layers-pattern", "layers"],
      "bad-usage",
      /--layers and --layers-to-transform both say.*\n.*--layers and --layers-pattern/,
    ],
    [["--layers", "lats 2"], "bad-usage", /--layers must be like.*closest: "last"/],
    [["--target-modules", "q_proj", "--layers", "6"], "layer-out-of-range", /which has 0–5/],
    [["--target-modules", "*_porj"], "no-match", /--target-modules: the entry "\*_porj" matches no module/],
    [["--config", groups, "--layers", "1"], "bad-usage", /--layers does not fit .*groups\.yaml/],
    [["--config", groups, "--target-modules", "q_proj"], "bad-usage", /--target-modules does not fit/],
    [
      ["--config", tagged],
      "invalid-yaml",
      /tagged\.yaml: not valid YAML: line 2, column 34: !lm_head.*quotes/,
    ],
    [
      ["--config", wrong],
      "invalid-value",
      /3 problems:.*groups\[0\]\.target_modules.*groups\[0\]\.r .*- r must/s,
    ],
    [["--config", join(directory, "none.yaml")], "missing-file", /none\.yaml/],
  ])("%j", async (args, code, message) => {
    const { code: exit, json } = await graft(["select", tinyLlama, ...args, "--json"]);
    const { error } = json<ErrorDocument>();
    expect(error.message).toMatch(message);
    expect([error.code, exit]).toEqual([code, 2]);
  });
});

describe("train", () => {
  const { modelPath, dataPath } = new ReferenceCase(join(vectors, "models/llama-qv"));
  const train = (name: string, ...args: string[]) =>
    graft([
      ...["train", modelPath, "--data", dataPath, "--batch-size", "2", "--max-steps", "1"],
      ...["--output", join(directory, name), "--json", ...args],
    ]);
  const saved = (name: string): Record<string, unknown> =>
    JSON.parse(readFileSync(join(directory, name, "adapter_config.json"), "utf8")) as Record<string, unknown>;

  test("--layers: the saved configuration is PEFT's", async () => {
    const { code, stderr, json } = await train(
      "layers",
      "--target-modules",
      "*.{q,v}_proj",
      "--layers",
      "last 1",
    );
    expect(code, stderr).toBe(0);
    const names = json<Selected>().targets.map(({ name }) => name);
    const last = names[0]!.split(".")[2];
    expect(names).toEqual(["q_proj", "v_proj"].map((leaf) => `model.layers.${last}.self_attn.${leaf}`));
    const config = saved("layers");
    expect(config).toMatchObject({ task_type: "CAUSAL_LM", layers_to_transform: [Number(last)] });
    expect([...(config["target_modules"] as string[])].sort()).toEqual(["q_proj", "v_proj"]);
    const evaluated = await graft([
      ...["eval", modelPath, "--adapter", join(directory, "layers"), "--data", dataPath, "--json"],
    ]);
    expect(evaluated.code, evaluated.stderr).toBe(0);
  });

  test("--config graft.yaml: ranks by group", async () => {
    const path = file(
      "train.yaml",
      "groups:\n  - {target_modules: q_proj, layers: 0, r: 2}\n  - {target_modules: v_proj, r: 4}\n",
    );
    const { code, stderr, json } = await train("yaml", "--config", path);
    expect(code, stderr).toBe(0);
    const ranks = new Map(
      json<Selected>().targets.map(({ name, r }) => [name.replace("model.layers.", ""), r]),
    );
    expect(ranks.get("0.self_attn.q_proj")).toBe(2);
    expect(ranks.get("0.self_attn.v_proj")).toBe(4);
    expect(ranks.has("1.self_attn.q_proj")).toBe(false);
    expect(saved("yaml")).not.toHaveProperty("groups");
  });

  test("groups that do not fit the model", async () => {
    const { code, json } = await train("none", "--target-modules", "q_proj", "--layers", "layer=99");
    expect([code, json<ErrorDocument>().error.code]).toEqual([2, "unknown-list"]);
  });
});
