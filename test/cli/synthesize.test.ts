import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type ErrorDocument, graft, scratch, tinyLlama, vectors } from "./support.ts";

const directory = scratch();
const florence = join(vectors, "skeletons/florence2-base.json.gz");

type Document = {
  config: Record<string, unknown>;
  exact: boolean;
  form: string;
  deeper: { same: boolean; message: string };
  targets: { name: string; r: number; alpha: number }[];
  warnings: { code: string; message: string }[];
};

const file = (name: string, text: string): string => {
  const path = join(directory, name);
  writeFileSync(path, text);
  return path;
};

const names = (layers: readonly number[], leaves: readonly string[]): string[] =>
  layers.flatMap((layer) => leaves.map((leaf) => `model.layers.${layer}.self_attn.${leaf}`));

describe("synthesize", () => {
  test("names from lines, comments and blank lines aside; the file selects the same", async () => {
    const lines = file("lines.txt", `# attention\n\n${names([4, 5], ["q_proj", "v_proj"]).join("\r\n  ")}\n`);
    const output = join(directory, "adapter_config.json");
    const { code, stdout, stderr } = await graft([
      ...["synthesize", tinyLlama, "--names", lines, "--r", "16", "--lora-alpha", "32", "--output", output],
    ]);
    expect(code, stderr).toBe(0);
    expect(stdout).toContain('target_modules: ["q_proj", "v_proj"]');
    expect(stdout).toContain("layers_to_transform: [4, 5]");
    expect(stdout).toContain("exactly 4 targets: q_proj, v_proj in layers 4–5");
    expect(stdout).toContain("list+layers");
    expect(stdout).toContain("none of the new ones");
    expect(readdirSync(directory).filter((own) => own.includes("tmp"))).toEqual([]);

    const saved = JSON.parse(readFileSync(output, "utf8")) as Record<string, unknown>;
    expect(saved).toMatchObject({ peft_type: "LORA", r: 16, lora_alpha: 32, layers_to_transform: [4, 5] });
    const selected = await graft(["select", tinyLlama, "--config", output, "--json"]);
    expect(selected.code, selected.stderr).toBe(0);
    expect(selected.json<Document>().targets.map(({ name }) => name)).toEqual(
      names([4, 5], ["q_proj", "v_proj"]),
    );
  });

  test("a JSON array from standard input", async () => {
    const { code, stderr, json } = await graft(["synthesize", tinyLlama, "--names", "-", "--json"], {
      input: JSON.stringify(names([0, 1, 2, 3, 4, 5], ["q_proj"])),
    });
    expect(code, stderr).toBe(0);
    expect(json<Document>()).toMatchObject({
      exact: true,
      form: "list",
      config: { target_modules: ["q_proj"], layers_to_transform: null, peft_type: "LORA" },
      deeper: { same: false },
      warnings: [],
    });
    expect(json<Document>().targets).toHaveLength(6);
  });

  test("ranks and alphas from a JSON object; flags for those without", async () => {
    const [q, v] = names([1], ["q_proj", "v_proj"]);
    const path = file("ranks.json", JSON.stringify({ [q!]: 4, [v!]: { r: 2, lora_alpha: 3 }, lm_head: {} }));
    const { code, stderr, json } = await graft([
      ...["synthesize", tinyLlama, "--names", path, "--r", "6", "--lora-alpha", "12", "--json"],
    ]);
    expect(code, stderr).toBe(0);
    expect(json<Document>().targets.map(({ name, r, alpha }) => [name, r, alpha])).toEqual([
      [q, 4, 12],
      [v, 2, 3],
      ["lm_head", 6, 12],
    ]);
    expect(json<Document>().warnings).toMatchObject([{ code: "tied-layer-adapted" }]);
    expect(stderr).toContain("tied");
  });

  test("huggingface/peft#2165 on a skeleton, as Python too", async () => {
    const wanted = (
      JSON.parse((await graft(["inspect", florence, "--json"])).stdout) as { modules: { name: string }[] }
    ).modules
      .map(({ name }) => name)
      .filter((name) => /language_model\.(?:decoder|encoder\.layers\.[45])\..*[qv]_proj$/.test(name));
    expect(wanted).toHaveLength(28);
    const path = file("florence.txt", wanted.join("\n"));
    const { code, stdout, stderr } = await graft(["synthesize", florence, "--names", path, "--python"]);
    expect(code, stderr).toBe(0);
    expect(stdout).toContain("encoder\\.layers\\.[45]|decoder");
    expect(stdout).toContain("LoraConfig(");
  });

  test("unknown and unsupported modules, all of them", async () => {
    const { code, stderr, json } = await graft(["synthesize", tinyLlama, "--names", "-", "--json"], {
      input: "model.layers.0.self_attn.q_prj\nmodel.norm\nmodel.layers.1.mlp\n",
    });
    expect(code).toBe(2);
    const { error } = json<ErrorDocument>();
    expect(error.code).toBe("unknown-module");
    expect(error.details).toMatchObject({
      unknown: [{ name: "model.layers.0.self_attn.q_prj" }],
      unsupported: [{ name: "model.norm" }, { name: "model.layers.1.mlp" }],
    });
    expect(stderr).toContain("model.layers.0.self_attn.q_proj");
  });

  test("all that is wrong with the command", async () => {
    const { code, stderr } = await graft([
      ...["synthesize", tinyLlama, "--r", "0", "--output", join(directory, "nowhere/adapter_config.json")],
    ]);
    expect(code).toBe(2);
    expect(stderr).toContain("--r must be a whole number of at least 1");
    expect(stderr).toContain("--names is missing");
    expect(stderr).toContain("there is no folder");
    expect(existsSync(join(directory, "nowhere"))).toBe(false);
  });

  test.each<[title: string, text: string | Buffer, code: string, message: string]>([
    ["nothing", "\n# only a comment\n", "no-names", "names no module"],
    ["an empty array", "[]", "no-names", "names no module"],
    ["half a JSON document", '["lm_head", ', "invalid-names", "begins like JSON"],
    ["no names", '["lm_head", 3, null]', "invalid-names", "entry 2 must be a name, got 3; entry 3"],
    [
      "no ranks",
      '{"lm_head": 0, "model.norm": {"r": 1.5, "lora_alpha": "x", "rank": 1}}',
      "invalid-names",
      'there is no "rank"',
    ],
    ["bytes that are no text", Buffer.from([0xff, 0xfe, 0x00]), "unreadable-file", "not UTF-8"],
  ])("a file with %s", async (title, text, expectedCode, message) => {
    const path = join(directory, `${title}.txt`);
    writeFileSync(path, text);
    const { code, json, stderr } = await graft(["synthesize", tinyLlama, "--names", path, "--json"]);
    expect(code).toBe(2);
    expect(json<ErrorDocument>().error.code).toBe(expectedCode);
    expect(stderr).toContain(message);
  });

  test("files that cannot be read or written", async () => {
    const folder = join(directory, "folder");
    mkdirSync(folder);
    const missing = await graft(["synthesize", tinyLlama, "--names", join(directory, "missing.txt")]);
    expect([missing.code, missing.stderr]).toEqual([2, expect.stringContaining("there is no such file")]);
    const unreadable = await graft(["synthesize", tinyLlama, "--names", folder]);
    expect([unreadable.code, unreadable.stderr]).toEqual([2, expect.stringContaining("it is a directory")]);
    const path = file("head.txt", "lm_head");
    const unwritable = await graft(["synthesize", tinyLlama, "--names", path, "--output", folder]);
    expect([unwritable.code, unwritable.stderr]).toEqual([2, expect.stringContaining("it is a directory")]);
  });
});
