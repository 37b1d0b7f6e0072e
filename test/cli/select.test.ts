import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { ReferenceCase } from "../support/reference-case.ts";
import { type ErrorDocument, graft, root, scratch, tinyLlama, vectors } from "./support.ts";

const directory = scratch();
type Selected = {
  targets: { name: string; r: number; alpha: number; scaling: number; parameters: number }[];
  targetParameters: unknown[];
  modulesToSave: string[];
  trainableParameters: number;
  totalParameters: number;
  config: Record<string, unknown>;
  cost: Record<string, number>;
  matrix: { stacks: unknown[]; rows: { entry: string }[] };
  warnings: { code: string; message: string }[];
};
const select = async (...args: string[]): Promise<Selected> => {
  const { code, stderr, json } = await graft(["select", ...args, "--json"]);
  expect(code, stderr).toBe(0);
  return json<Selected>();
};

describe("select", () => {
  test.each(["llama-qv", "llama-lm-head-lora", "qwen2-tied-embedding-lora", "qwen3-head-dim"])(
    "an adapter_config.json of PEFT on %s",
    async (name) => {
      const { modelPath, adapterPath, expected } = new ReferenceCase(join(vectors, "models", name));
      const config = join(directory, `${name}.json`);
      const saved = JSON.parse(readFileSync(join(adapterPath, "adapter_config.json"), "utf8")) as object;
      writeFileSync(config, JSON.stringify({ ...saved, inference_mode: false }));
      const selected = await select(modelPath, "--config", config);
      expect(selected.targets.map(({ parameters: _, ...target }) => target)).toEqual(expected.targets);
      expect(selected).toMatchObject({
        trainableParameters: expected.trainableParameters,
        totalParameters: expected.totalParameters,
      });
    },
  );

  test("a saved adapter counts as PEFT loads it, frozen, and costs what training it does", async () => {
    const { modelPath, adapterPath, expected } = new ReferenceCase(join(vectors, "models/llama-qv"));
    const { code, stderr, json } = await graft(["select", modelPath, "--config", adapterPath, "--json"]);
    expect(code).toBe(0);
    expect(stderr).toContain("inference_mode is true");
    const { trainableParameters, cost } = json<Selected>();
    expect([trainableParameters, cost["trainableParameters"]]).toEqual([0, expected.trainableParameters]);
  });

  test("flags give the same as the file that they stand for, and print it", async () => {
    const flags = [
      ...["--target-modules", "q_proj,v_proj,down_proj", "--layers-to-transform", "4,5", "--r", "16"],
      ...["--lora-alpha", "32", "--rank-pattern", "down_proj=4", "--alpha-pattern", "v_proj=8"],
      ...["--exclude-modules", ".*4.*down_proj", "--modules-to-save", "model.norm", "--use-rslora"],
    ];
    const selected = await select(tinyLlama, ...flags);
    expect(
      selected.targets.map(({ name, r, alpha }) => [name.replace("model.layers.", ""), r, alpha]),
    ).toEqual([
      ["4.self_attn.q_proj", 16, 32],
      ["4.self_attn.v_proj", 16, 8],
      ["5.self_attn.q_proj", 16, 32],
      ["5.self_attn.v_proj", 16, 8],
      ["5.mlp.down_proj", 4, 32],
    ]);
    expect(selected.modulesToSave).toEqual(["model.norm"]);
    const lora = 2 * (16 * (128 + 128) + 16 * (128 + 64)) + 4 * (384 + 128);
    expect(selected.trainableParameters).toBe(lora + 128);
    expect(selected.cost).toMatchObject({ adapterParameters: lora + 128, optimizerBytes: 8 * (lora + 128) });
    const saved = join(directory, "sized");
    await graft(["init", tinyLlama, ...flags, "--output", saved]);
    expect(selected.cost["adapterBytes"]).toBe(statSync(join(saved, "adapter_model.safetensors")).size);
    const file = join(directory, "adapter_config.json");
    writeFileSync(file, JSON.stringify(selected.config));
    // a file's names are sorted
    const byEntry = ({ matrix, ...rest }: Selected) => ({
      ...rest,
      matrix: { ...matrix, rows: matrix.rows.toSorted((a, b) => (a.entry < b.entry ? -1 : 1)) },
    });
    expect(byEntry(await select(tinyLlama, "--config", file))).toEqual(byEntry(selected));
  });

  test("a directory, its config.json and its safetensors file are the same model", async () => {
    const flags = ["--target-modules", "all-linear"];
    const { targets, totalParameters } = await select(tinyLlama, ...flags);
    expect(targets).toHaveLength(42);
    for (const file of ["config.json", "model.safetensors"])
      expect(await select(join(tinyLlama, file), ...flags)).toMatchObject({ targets, totalParameters });
  });

  test("skeleton files, packed or not, of models that cannot be trained here", async () => {
    const packed = join(vectors, "skeletons/clip-vit-b32.json.gz");
    const flags = ["--target-modules", "q_proj"];
    const { targets, totalParameters } = await select(packed, ...flags);
    expect(targets).toHaveLength(24);
    const { gunzipSync } = await import("node:zlib");
    const plain = join(directory, "clip.json");
    writeFileSync(plain, gunzipSync(readFileSync(packed)));
    expect(await select(plain, ...flags)).toMatchObject({ targets, totalParameters });
  });

  test("does without ONNX Runtime", async () => {
    const run = (blocked: string) =>
      graft(["select", tinyLlama, "--target-modules", "q_proj"], {
        imports: [join(root, "test/cli/block-imports.mjs")],
        env: { GRAFT_TEST_BLOCK: blocked },
      });
    const { code, stdout } = await run("onnxruntime|/runtime/");
    expect(code).toBe(0);
    expect(stdout).toContain("6 targets: q_proj in layers 0–5");
    const control = await run("cli-table3"); // so what is blocked is missed where it is needed
    expect([control.code, control.stderr]).toEqual([1, expect.stringContaining("blocked: cli-table3")]);
  });

  test("a folded tree for people, or a table, and the cost against all-linear", async () => {
    const flags = ["--target-modules", "q_proj,v_proj", "--layers-to-transform", "4,5"];
    const tree = await graft(["select", tinyLlama, ...flags]);
    expect(tree.stdout).toContain("   └─ layers.4–5 × 2  LlamaDecoderLayer");
    expect(tree.stdout).toMatch(/─ q_proj {4}linear +\[128, 128\] +16,384 {2}× 2 +2\.3 % {2}r=8 α=8\n/);
    expect(tree.stdout).toContain("trainable parameters                7,168     116,736  6.1 %\n");
    const { stdout } = await graft(["select", tinyLlama, ...flags, "--list"]);
    expect(stdout.split("\n").slice(0, 8)).toEqual([
      "target                           r  alpha  scaling  parameters",
      ...[4, 5].flatMap((layer) => [
        `model.layers.${layer}.self_attn.q_proj  8      8        1       2,048`,
        `model.layers.${layer}.self_attn.v_proj  8      8        1       1,536`,
      ]),
      "",
      "4 targets: q_proj, v_proj in layers 4–5",
      "trainable params: 7,168 || all params: 1,450,624 || trainable%: 0.4941",
    ]);
  });

  test("--diff shows what another configuration takes, and nothing where they agree", async () => {
    const [a, b] = ["a.json", "b.json"].map((name) => join(directory, name)) as [string, string];
    writeFileSync(a, JSON.stringify({ peft_type: "LORA", target_modules: ["q_proj", "v_proj"] }));
    writeFileSync(
      b,
      JSON.stringify({ peft_type: "LORA", target_modules: [".*"], r: 4 }).replace(
        '[".*"]',
        JSON.stringify(".*q_proj"),
      ),
    );
    const { stdout } = await graft(["select", tinyLlama, "--config", a, "--diff", b]);
    expect(stdout).toContain("- model.layers.{0-5}.self_attn.v_proj");
    expect(stdout).toContain("~ model.layers.{0-5}.self_attn.q_proj");
    const { json } = await graft(["select", tinyLlama, "--config", a, "--diff", b, "--json"]);
    const { diff } = json<{ diff: { onlyA: object[]; onlyB: object[]; changed: object[] } }>();
    expect([diff.onlyA.length, diff.onlyB.length, diff.changed.length]).toEqual([6, 0, 6]);
    // a saved adapter says inference_mode, which freezes it and selects nothing else
    const saved = join(directory, "saved.json");
    writeFileSync(saved, JSON.stringify({ ...JSON.parse(readFileSync(a, "utf8")), inference_mode: true }));
    const same = await graft(["select", tinyLlama, "--config", a, "--diff", saved]);
    expect(same.stdout).toContain("select the same: 12 targets");
  });

  test("--strict makes warnings errors, --python prints PEFT's code", async () => {
    const typo = await graft([
      "select",
      tinyLlama,
      "--target-modules",
      "q_proj,v_porj",
      "--strict",
      "--json",
    ]);
    expect(typo.code).toBe(2);
    expect(typo.json<ErrorDocument>().error).toMatchObject({ code: "strict" });
    const fine = await graft([
      ...["select", tinyLlama, "--target-modules", "q_proj", "--layers", "last 2", "--strict", "--python"],
    ]);
    expect(fine.code).toBe(0);
    expect(fine.stdout).toContain("    layers_to_transform=[4, 5],\n");
  });

  test("warnings are for both: on stderr, and in the document", async () => {
    const { stderr, json } = await graft([
      ...["select", tinyLlama, "--target-modules", "q_proj", "--rank-pattern", "k_proj=4", "--json"],
    ]);
    const [warning] = json<Selected>().warnings;
    expect(warning).toMatchObject({ code: "rank-pattern-unmatched" });
    expect(warning!.message).toMatch(/^--rank-pattern: "k_proj"/);
    expect(stderr).toBe(`warning: ${warning!.message}\n`);
  });
});

describe("select says what is wrong", () => {
  const malformed = join(directory, "malformed.json");
  writeFileSync(malformed, '{"modules": [["", "Model", "modul", null, null, []]]}');
  const notGzip = join(directory, "not.json.gz");
  writeFileSync(notGzip, "{}");
  const notJson = join(directory, "text.json.gz");
  writeFileSync(notJson, gzipSync("{"));
  const other = join(directory, "other.json");
  writeFileSync(other, '{"name": "x"}');
  const settings = join(directory, "settings.json");
  writeFileSync(settings, '{"peft_type": "LORA", "lora_alpha": "x", "r": -1}');

  test.each([
    [[tinyLlama, "--target-modules", "q_porj"], "no-match", /--target-modules.*Closest: "q_proj"/],
    [[tinyLlama, "--target-modules", "(q_proj"], "invalid-regex", /\(q_proj/],
    [
      [tinyLlama, "--target-modules", ".*q_proj", "--layers-to-transform", "1"],
      "bad-usage",
      /--layers-to-transform/,
    ],
    [[malformed], "invalid-skeleton", /malformed\.json: .*row 0/],
    [[notGzip], "invalid-json", /not\.json\.gz: not a gzip-compressed JSON file/],
    [[notJson], "invalid-json", /text\.json\.gz: not a gzip-compressed JSON file/],
    [[other], "not-a-model", /other\.json: neither a skeleton .* nor a config\.json/],
    [[join(directory, "none")], "missing-file", /none: no such file/],
    [[tinyLlama, "--config", settings], "invalid-value", /settings\.json.*lora_alpha/s],
    [[tinyLlama, "--config", join(directory, "none.json")], "missing-file", /none\.json/],
  ])("%j", async (args, code, message) => {
    const { code: exit, json } = await graft(["select", ...args, "--json"]);
    const { error } = json<ErrorDocument>();
    expect(error.message).toMatch(message);
    expect([error.code, exit]).toEqual([code, 2]);
  });
});
