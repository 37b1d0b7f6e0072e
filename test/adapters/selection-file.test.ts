import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { fieldNames } from "../../src/adapters/config-fields.ts";
import { snakeCase } from "../../src/adapters/config-options.ts";
import {
  LoraConfig,
  parseSelectionFile,
  readSelectionFile,
  type SelectionFile,
} from "../../src/adapters/index.ts";
import { fileSchema, graftSchema } from "../../src/adapters/selection-file-schema.ts";
import { parseYaml } from "../../src/adapters/yaml.ts";
import { blobStore } from "../../src/checkpoint/index.ts";
import { AdapterError, isGraftError } from "../../src/errors.ts";

const read = (name: string, text: string | Uint8Array<ArrayBuffer>): Promise<SelectionFile> =>
  readSelectionFile(blobStore(new Map([[name, new Blob([text])]])), name, { file: name });
async function failure(name: string, text: string | Uint8Array<ArrayBuffer>) {
  const error = await read(name, text).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!isGraftError(error)) throw error ?? new Error("was not refused");
  return error;
}

const yaml = `
# comments are what YAML is for
r: 4
lora_alpha: 8
bias: lora_only
exclude_modules: ["*.0.**"]
groups:
  - name: text
    target_modules: [q_proj, "!lm_head"]
    layers: { encoder.layers: "-2:", decoder.layers: [0, last 2] }
  - target_modules: all-linear
    exclude_modules: lm_head
    layers: 3
    r: 16
    lora_alpha: 0.5
`;
const groups = [
  {
    name: "text",
    targetModules: ["q_proj", "!lm_head"],
    layers: { "encoder.layers": "-2:", "decoder.layers": [0, "last 2"] },
  },
  { targetModules: "all-linear", excludeModules: "lm_head", layers: 3, r: 16, loraAlpha: 0.5 },
];

describe("a file of groups", () => {
  test("has PEFT's options beside them", async () => {
    const file = await read("graft.yaml", yaml);
    expect(file.groups).toEqual(groups);
    expect(file.config).toMatchObject({ r: 4, loraAlpha: 8, bias: "lora_only", targetModules: null });
    expect(file.config.excludeModules).toEqual(new Set(["*.0.**"]));
    expect(file.warnings).toEqual([]);
  });

  test("is the same as JSON, and as YAML that is JSON", async () => {
    const json = JSON.stringify(parseSelectionFileJson());
    for (const name of ["graft.json", "adapter_config.json", "graft.yml"]) {
      const file = await read(name, json);
      expect(file.groups).toEqual(groups);
      expect(file.config.toJSON()).toEqual((await read("graft.yaml", yaml)).config.toJSON());
    }
  });

  test("of which there is one, may have its fields at the top", async () => {
    const file = await read("graft.yaml", "r: 2\ntarget_modules: q_proj\nlayers: last 2\n");
    expect(file.groups).toEqual([{ targetModules: "q_proj", layers: "last 2" }]);
    expect(file.config).toMatchObject({ r: 2, targetModules: null });
  });

  test("unknown fields are kept where a configuration can keep them, and warned of", async () => {
    const file = await read("graft.yaml", "lora_r: 3\ngroups: [{target_modules: q, layer: 3}]");
    expect(file.warnings.map(({ code, message }) => [code, message])).toEqual([
      ["unknown-config-key", expect.stringMatching(/no lora_r/)],
      ["unknown-group-key", expect.stringMatching(/groups\[0\] has a field layer.*Closest: layers/)],
    ]);
    expect(file.config.toJSON()).toMatchObject({ lora_r: 3 });
  });
});

function parseSelectionFileJson(): unknown {
  const plain = (value: unknown): unknown =>
    value instanceof Map
      ? Object.fromEntries([...value].map(([key, item]) => [key, plain(item)]))
      : Array.isArray(value)
        ? value.map(plain)
        : value;
  return plain(parseYaml(yaml, "graft.yaml"));
}

describe("a file without groups", () => {
  test.each([
    ["adapter_config.json", '{"peft_type": "LORA", "target_modules": ["q"], "layers_to_transform": [1]}'],
    ["adapter_config.yaml", "peft_type: LORA\ntarget_modules: [q]\nlayers_to_transform: [1]"],
  ])("is an adapter_config.json: %s", async (name, text) => {
    const { config, groups: none } = await read(name, text);
    expect(none).toBeUndefined();
    expect(config.toJSON()).toEqual(
      new LoraConfig({ targetModules: ["q"], layersToTransform: [1] }).toJSON(),
    );
  });

  test.each([
    ["adapter_config.json", '{"rank_pattern": {"b": 1, "10": 4, "2": 8, "10": 5}, "r": 8}'],
    ["adapter_config.yaml", "rank_pattern:\n  b: 1\n  10: 5\n  2: 8\n"],
  ])("patterns that look like numbers keep their order: %s", async (name, text) => {
    const { config } = await read(name, text);
    expect([...config.rankPattern!]).toEqual([
      ["b", 1],
      ["10", 5],
      ["2", 8],
    ]);
  });
});

describe("what is wrong in a file", () => {
  test("is all said at once, with its place and what to do", async () => {
    const error = await failure(
      "graft.yaml",
      `r: x
target_modules: [q_proj]
layers: 3
groups:
  - target_modules: 3
    r: 0
  - layers: {encoder: {a: 1}}
    lora_alpha: "2"
  - q_proj
`,
    );
    const problems = error.details["problems"] as { field: string; message: string }[];
    expect(problems.map(({ field }) => field)).toEqual([
      "target_modules",
      "layers",
      "groups[0].target_modules",
      "groups[0].r",
      "groups[1].layers",
      "groups[1].lora_alpha",
      "groups[2]",
      "r",
    ]);
    expect(error.message).toMatch(/^graft\.yaml has 8 problems:/);
    expect(error.message).toContain('groups[1].lora_alpha must be a number, not "2"');
  });

  test.each([
    ["groups: []", "invalid-value", /groups must be a list of at least one group/],
    ["groups: q_proj", "invalid-value", /groups must be a list of groups, not "q_proj"/],
    ["peft_type: LOHA\ngroups: [{}]", "not-lora", /LOHA/],
    ["- a", "invalid-value", /a JSON object/],
    ["r: 1\nr: 2", "invalid-yaml", /line 2, column 1: a key is given twice/],
    [
      "groups:\n  - target_modules: [!lm_head]",
      "invalid-yaml",
      /line 2, column 22: !lm_head is read as a tag.*quotes/,
    ],
    ["target_modules: [*_proj]", "invalid-yaml", /line 1, column 18: \*_proj names no anchor.*quotes/],
    ["layers: -2:", "invalid-yaml", /line 1, column 9: .*quotes/],
    ["? [a]\n: 1", "invalid-yaml", /line 1, column 3/],
    ["a: 1\n---\nb: 2", "invalid-yaml", /more than one document/],
    ["a: &a [*a]", "invalid-yaml", /aliases/],
    [
      `a: &a [x, x, x, x, x, x, x, x, x]\n${["b", "c", "d", "e"].map((key, i) => `${key}: &${key} [${Array(9).fill(`*${"abcd"[i]}`).join(", ")}]`).join("\n")}`,
      "invalid-yaml",
      /aliases/,
    ],
    [`a: [${"*a, ".repeat(50_000)}]`, "invalid-yaml", /line 1, column 5: \*a names no anchor/],
    ["[".repeat(100_000), "invalid-yaml", /more than 200 collections inside each other/],
    ["- ".repeat(100_000), "invalid-yaml", /more than 200 collections inside each other/],
    [`a: "${"x".repeat(2 ** 20)}"`, "file-too-large", /too many for YAML/],
  ])("%#: %.40j", async (text, code, message) => {
    const error = await failure("graft.yaml", text);
    expect([error.code, error.message]).toEqual([code, expect.stringMatching(message)]);
    expect(error).toBeInstanceOf(AdapterError);
  });

  test("in text that is no UTF-8, or no JSON", async () => {
    expect((await failure("graft.yaml", new Uint8Array([0x61, 0xff]))).message).toMatch(/not valid UTF-8/);
    expect((await failure("graft.json", '{"groups": [}')).code).toBe("invalid-json");
  });

  test("aliases of reasonable use are fine", () => {
    const content = parseYaml("x: &m [q_proj, v_proj]\ngroups:\n  - target_modules: *m\n", "graft.yaml");
    expect(parseSelectionFile(content, { file: "graft.yaml" }).groups).toEqual([
      { targetModules: ["q_proj", "v_proj"] },
    ]);
  });
});

describe("the published schema", () => {
  const path = new URL("../../schemas/graft.schema.json", import.meta.url);
  const published = JSON.parse(readFileSync(path, "utf8")) as {
    properties: Record<string, { description?: string }>;
  };

  test("is up to date: node --import tsx scripts/make-schema.ts && npx biome format --write schemas", () => {
    expect(published).toEqual(JSON.parse(JSON.stringify(graftSchema())));
  });

  test("describes every option of LoraConfig, and no other", () => {
    expect(Object.keys(published.properties).sort()).toEqual(
      [...fieldNames.map(snakeCase), "groups", "layers", "peft_type"].sort(),
    );
    expect(Object.entries(published.properties).filter(([, { description }]) => !description)).toEqual([]);
  });

  test("takes what LoraConfig writes, and the file above", () => {
    const configs = [
      new LoraConfig(),
      new LoraConfig({ targetModules: "all-linear", rankPattern: { q: 1 }, initLoraWeights: "eva" }),
      new LoraConfig({
        targetModules: ["q"],
        layersToTransform: 1,
        layersPattern: ["h"],
        taskType: "CAUSAL_LM",
      }),
    ];
    for (const config of configs) expect(fileSchema.safeParse(config.toJSON()).error).toBeUndefined();
    expect(fileSchema.safeParse(parseSelectionFileJson()).error).toBeUndefined();
    expect(fileSchema.safeParse({ groups: [{ r: 0 }] }).success).toBe(false);
  });
});
