import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type ErrorDocument, graft, tinyLlama, vectors } from "./support.ts";

type Explained = {
  modules: { name: string; selected: boolean; rule: string; reason: string; near?: { kind: string } }[];
  matrix: { stacks: { path: string }[]; rows: { entry: string; total: number }[] };
  warnings: { code: string; message: string }[];
  failure?: { code: string; message: string };
};
const explain = async (...args: string[]): Promise<Explained> => {
  const { code, stderr, json } = await graft(["explain", ...args, "--json"]);
  expect(code, stderr).toBe(0);
  return json<Explained>();
};
const skeleton = (name: string): string => join(vectors, "skeletons", `${name}.json.gz`);

describe("explain", () => {
  test("modules that are asked for, one by one", async () => {
    const { code, stdout, stderr } = await graft([
      ...["explain", tinyLlama, "--target-modules", "q_proj", "--layers-to-transform", "4,5"],
      ...["model.layers.3.self_attn.q_proj", "*layers.5.*q_proj", "model.norm"],
    ]);
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout).toBe(
      [
        "model.layers.3.self_attn.q_proj: not a target",
        '  "q_proj" matched; layer index 3 (model.layers.3) is not in [4, 5]',
        "model.layers.5.self_attn.q_proj: target (r 8, alpha 8, scaling 1)",
        '  the name ends with "q_proj", and layer index 5 (model.layers.5) is in [4, 5]',
        "model.norm: not a target",
        "  no entry of --target-modules is its name or the end of it",
        "",
      ].join("\n"),
    );
  });

  test("without names: targets and near misses folded, entries by layer", async () => {
    const { code, stdout, stderr } = await graft([
      ...[
        "explain",
        tinyLlama,
        "--target-modules",
        "q_proj,v_porj,down_proj",
        "--layers-to-transform",
        "4,5",
      ],
      ...["--exclude-modules", "5.mlp.down_proj"],
    ]);
    expect(code).toBe(0);
    expect(stderr).toBe('warning: --target-modules: "v_porj" matches no module (nearest: "v_proj").\n');
    expect(stdout).toBe(
      [
        "targets: 3",
        "  model.layers.{4-5}.self_attn.q_proj (2)",
        '    the name ends with "q_proj", and the layer index is in [4, 5]',
        "  model.layers.4.mlp.down_proj",
        '    the name ends with "down_proj", and the layer index is in [4, 5]',
        "",
        "nearly targets: 9",
        "  model.layers.{0-3}.self_attn.q_proj (4)",
        '    "q_proj" matched; the layer index is not in [4, 5]',
        "  model.layers.{0-3}.mlp.down_proj (4)",
        '    "down_proj" matched; the layer index is not in [4, 5]',
        "  model.layers.5.mlp.down_proj",
        '    excluded by --exclude-modules "5.mlp.down_proj"; "down_proj" would take it',
        "",
        "model.layers  0-3  4  5  total",
        "q_proj          ·  1  1      2",
        "down_proj       ·  1  ·      1",
        "",
        "took nothing: v_porj",
        "",
      ].join("\n"),
    );
  });

  test("the document holds every module, the matrix and the warnings", async () => {
    const { modules, matrix, warnings } = await explain(
      skeleton("clip-vit-b32"),
      "--target-modules",
      "q_proj",
    );
    expect(modules).toHaveLength(306);
    expect(modules.filter(({ selected }) => selected)).toHaveLength(24);
    expect(modules.every(({ rule, reason }) => rule !== "" && reason !== "")).toBe(true);
    expect(matrix.rows).toMatchObject([{ entry: "q_proj", total: 24 }]);
    expect(warnings.map(({ code }) => code)).toEqual(["several-towers"]);
  });

  test("groups, which PEFT's options cannot say", async () => {
    const flags = [
      "--target-modules",
      "q_proj,v_proj",
      "--layers",
      "encoder.layers=-2:",
      "--layers",
      "decoder.layers=:",
    ];
    const { code, stdout } = await graft(["explain", skeleton("florence2-base"), ...flags]);
    expect(code).toBe(0);
    expect(stdout).toContain(
      [
        "nearly targets: 8",
        "  model.language_model.encoder.layers.{0-3}.self_attn.v_proj (4)",
        '    "v_proj" matched; but its layer of model.language_model.encoder.layers is not in encoder.layers "-2:", decoder.layers ":"',
      ].join("\n"),
    );
    expect(stdout).toMatch(
      /model\.language_model\.encoder\.layers +0-3 +4-5 +total\nq_proj +· +1 +2\nv_proj +· +1 +2\n\nmodel\.language_model\.decoder\.layers +0-5 +total\nq_proj +2 +12\n/,
    );
  });

  test("a configuration that PEFT refuses is explained all the same", async () => {
    const args = ["explain", tinyLlama, "--target-modules", "q_proj,norm,mlp"];
    const { code, stdout, stderr } = await graft(args);
    expect(code).toBe(0);
    expect(stderr).toContain(
      "warning: 6 LlamaMLPs are matched but cannot carry LoRA: model.layers.{0-5}.mlp.",
    );
    expect(stderr).toContain("PEFT refuses this configuration on this model:");
    expect(stdout).toContain("matched, if PEFT took the configuration: 13");
    const { failure } = await explain(...args.slice(1));
    expect(failure?.code).toBe("unsupported-module-type");
  });

  test("--strict makes errors of warnings", async () => {
    const flags = [tinyLlama, "--target-modules", "q_proj", "--rank-pattern", "^q_proj=4"];
    expect((await explain(...flags)).warnings.map(({ code }) => code)).toEqual(["rank-pattern-unmatched"]);
    const { code, json } = await graft(["explain", ...flags, "--strict", "--json"]);
    const { error } = json<ErrorDocument>();
    expect([code, error.code]).toEqual([2, "strict"]);
    expect(error.message).toContain('--rank-pattern: "^q_proj" matches no targeted module');
    expect(error.details["warnings"]).toMatchObject([{ code: "rank-pattern-unmatched" }]);
    expect((await graft(["explain", tinyLlama, "--target-modules", "q_proj", "--strict"])).code).toBe(0);
    // PEFT's own keys for fused experts are nobody's mistake
    expect(
      (await graft(["explain", skeleton("mixtral-8x7b"), "--target-modules", "all-linear", "--strict"])).code,
    ).toBe(0);
  });
});

describe("explain says what is wrong", () => {
  test.each([
    [
      ["model.layers.0.self_atn.q_proj", "nothing"],
      "unknown-module",
      /"model\.layers\.0\.self_atn\.q_proj" \(nearest: "model\.layers\.0\.self_attn\.q_proj".*"nothing"/,
    ],
    [["--target-modules", "(q_proj"], "invalid-regex", /--target-modules/],
    [["--target-modules", "q_proj", "--layers-pattern", "layers"], "bad-usage", /--layers-pattern/],
  ])("%j", async (args, code, message) => {
    const { code: exit, json } = await graft(["explain", tinyLlama, ...args, "--json"]);
    const { error } = json<ErrorDocument>();
    expect(error.message).toMatch(message);
    expect([error.code, exit]).toEqual([code, 2]);
  });
});
