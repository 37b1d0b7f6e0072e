import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { serializeSafetensors } from "../../src/checkpoint/index.ts";
import { tensor } from "../../src/tensor/index.ts";
import { type ErrorDocument, graft, scratch, tinyLlama, vectors } from "./support.ts";

const directory = scratch();
const skeleton = (name: string) => join(vectors, "skeletons", `${name}.json.gz`);

type Inspected = {
  modelType: string;
  inferred: boolean;
  parameters: number;
  modules: { name: string; kind: string; shape: number[] | null; parameters: number }[];
  blocks: { pattern: string; count: number }[];
  weights: { tensors: number } | null;
  defaultTargetModules: string[];
  warnings: { code: string; message: string }[];
};

const inspect = async (...args: string[]): Promise<Inspected> => {
  const { code, stderr, json } = await graft(["inspect", ...args, "--json"]);
  expect(code, stderr).toBe(0);
  return json<Inspected>();
};

describe("--json", () => {
  test("modules, blocks and parameters", async () => {
    const { modules, ...rest } = await inspect(tinyLlama);
    expect(rest).toMatchObject({
      modelType: "llama",
      inferred: false,
      parameters: 1_443_456,
      blocks: [{ pattern: "layers", count: 6 }],
      weights: { tensors: 56 },
      defaultTargetModules: ["q_proj", "v_proj"],
      warnings: [],
    });
    expect(modules.find(({ name }) => name === "model.layers.3.mlp.down_proj")).toMatchObject({
      kind: "linear",
      shape: [128, 384],
      parameters: 128 * 384,
    });
    const counted = modules.filter(({ name }) => name !== "lm_head"); // tied
    expect(counted.reduce((sum, { parameters }) => sum + parameters, 0)).toBe(rest.parameters);
  });

  test("two towers", async () => {
    const { blocks } = await inspect(skeleton("florence2-base"));
    expect(blocks).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ pattern: "encoder.layers", count: 6 }),
        expect.objectContaining({ pattern: "decoder.layers", count: 6 }),
      ]),
    );
  });

  test("a filter", async () => {
    const { modules } = await inspect(tinyLlama, "--match", "layers.{1,2}.**.?_proj");
    expect(modules.map(({ name }) => name.replace("model.layers.", "")).slice(0, 5)).toEqual([
      ...["1.self_attn.q_proj", "1.self_attn.k_proj", "1.self_attn.v_proj", "1.self_attn.o_proj"],
      "2.self_attn.q_proj",
    ]);
    expect((await inspect(tinyLlama, "--match", "nothing")).warnings).toMatchObject([{ code: "no-match" }]);
  });
});

describe("for people", () => {
  test("a folded tree without colours, and what is worth knowing of the model", async () => {
    const { stdout, stderr, code } = await graft(["inspect", tinyLlama]);
    expect([code, stderr.includes("warning:")]).toEqual([0, false]);
    expect(stdout).toMatch(/layers\.0–5 × 6 +LlamaDecoderLayer +196,864 +× 6 +81\.8 %/);
    expect(stdout).toMatch(/blocks: +layers × 6\n/);
    expect(stdout).toMatch(/weights: +56 tensors, 5\.8 MB in 1 file \(float32\)/);
    expect(stdout).toMatch(/PEFT's default: +q_proj, v_proj/);
    expect(stdout).not.toContain("\u001b");
  });

  test("--depth cuts, --flat lists all", async () => {
    const { stdout } = await graft(["inspect", skeleton("t5-small"), "--depth", "1"]);
    expect(
      stdout
        .split("\n")
        .slice(0, 6)
        .map((line) => line.trim().split(/ {2,}/)[0]),
    ).toEqual([
      ...["T5ForConditionalGeneration", "├─ shared", "├─ encoder …", "├─ decoder …", "└─ lm_head", ""],
    ]);
    const flat = await graft(["inspect", skeleton("t5-small"), "--flat"]);
    expect(flat.stdout.split("\n\n")[0]!.split("\n")).toHaveLength(279);
    expect(flat.stdout).toMatch(
      /decoder\.block\.5\.layer\.2\.DenseReluDense\.wo +linear +\[512, 2048\] +1,048,576/,
    );
  });

  test("an inferred model is said to be one, and hostile names are harmless", async () => {
    const path = join(directory, "odd");
    mkdirSync(path);
    const weight = tensor("float32", [2, 2], new Float32Array(4));
    const names = ["a.\u001b[31mred.weight", `b.${"x".repeat(100_000)}.weight`, "c\u202e.weight"];
    writeFileSync(
      join(path, "model.safetensors"),
      serializeSafetensors(Object.fromEntries(names.map((name) => [name, weight]))),
    );
    for (const flags of [[], ["--flat"]]) {
      const { stdout, stderr, code } = await graft(["inspect", path, ...flags]);
      expect(code).toBe(0);
      expect(stderr).toContain("inferred from the names and shapes");
      expect(stdout).toContain("\\u{1b}[31mred");
      for (const character of ["\u001b", "\u202e"]) expect(stdout).not.toContain(character);
      expect(stdout.length).toBeLessThan(5_000);
    }
  });
});

test.each([
  [["nowhere/at/all"], "missing-file", /no such file/],
  [[tinyLlama, "--depth", "-1"], "bad-usage", /--depth must be 0 or a whole number/],
  [[tinyLlama, "--match", "[a"], "bad-usage", /--match has a "\[" without its "\]"/],
  [[join(vectors, "adapters")], "missing-file", /config\.json/],
])("%j", async (args, code, message) => {
  const { code: exit, json } = await graft(["inspect", ...args, "--json"]);
  const { error } = json<ErrorDocument>();
  expect(error.message).toMatch(message);
  expect([error.code, exit]).toEqual([code, 2]);
});

test("a model on the Hub that cannot be reached", async () => {
  const env = { HF_ENDPOINT: "http://127.0.0.1:9", HF_HOME: directory };
  const { code, json } = await graft(["inspect", "no-such-org/no-such-model", "--json"], { env });
  const { error } = json<ErrorDocument>();
  expect(error.message).toMatch(/no such file or directory, and on the Hub.*cannot be reached/);
  expect([error.code, code]).toEqual(["network", 1]);
});
