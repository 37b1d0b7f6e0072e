import { cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { LoraConfig, moduleTreeOf, olderTree, PeftModel } from "../../src/adapters/index.ts";
import { AutoModelForImageTextToText } from "../../src/models/index.ts";
import { selectTargets } from "../../src/selection/index.ts";
import { olderVectors } from "../adapters/older-case.ts";
import { type ErrorDocument, graft, scratch, tinyLlama, vectors } from "./support.ts";

const folder = scratch();
const florence2 = join(vectors, "florence2/florence2-four-stages/model");
const checkpoint = join(vectors, "florence2/florence2-four-stages/older");
const olderConfig = join(olderVectors, "config.json");
const names = (targets: readonly { name: string }[]): string[] => targets.map(({ name }) => name);

type Selected = {
  naming: string;
  targets: { name: string; r: number }[];
  config: Record<string, unknown>;
  cost: { trainableParameters: number };
  warnings: { code: string; message: string }[];
  python?: string;
};

/** What PEFT selects on the older class with a configuration that the command line printed. */
async function onOlderClass(config: Record<string, unknown>): Promise<string[]> {
  const model = await AutoModelForImageTextToText.fromPretrained(florence2);
  const tree = olderTree(moduleTreeOf(model), model.olderLayout!);
  return names(selectTargets(tree, LoraConfig.fromJSON(config).toSelection()).targets);
}

describe("graft select --naming remote-code", () => {
  test("shows older names, and a configuration that selects the same modules there", async () => {
    const flags = ["--target-modules", "qkv,conv1,**.encoder.**.q_proj", "--r", "48"];
    const [native, older] = await Promise.all([
      graft(["select", florence2, ...flags, "--json"]),
      graft(["select", florence2, ...flags, "--naming", "remote-code", "--python", "--json"]),
    ]);
    expect([native.code, older.code]).toEqual([0, 0]);
    const [here, there] = [native.json<Selected>(), older.json<Selected>()];
    expect([here.naming, there.naming]).toEqual(["native", "remote-code"]);
    const { olderLayout } = await AutoModelForImageTextToText.fromPretrained(florence2);
    expect(names(there.targets)).toEqual(names(here.targets).map((name) => olderLayout!.toOlder(name)));
    expect(names(there.targets)).toContain("vision_tower.blocks.0.0.spatial_block.conv1.fn.dw");
    expect(await onOlderClass(there.config)).toEqual(names(there.targets));
    expect(there.cost).toEqual(here.cost);
    expect(there.python).toContain("AutoModelForCausalLM.from_pretrained");
    expect(there.python).toContain("trust_remote_code=True");
  });

  test("names what has no older name", async () => {
    const { code, json } = await graft([
      ...[
        "select",
        florence2,
        "--target-modules",
        "image_projection,qkv",
        "--naming",
        "remote-code",
        "--json",
      ],
    ]);
    expect(code).toBe(2);
    const { error } = json<ErrorDocument>();
    expect(error.code).toBe("no-older-name");
    expect(error.message).toContain("bare parameter");
  });

  test("is refused for a model with one set of names, and for other words", async () => {
    const { code, stderr } = await graft([
      ...["select", tinyLlama, "--target-modules", "q_proj", "--naming", "remote-code"],
    ]);
    expect(code).toBe(2);
    expect(stderr).toContain("(llama) has no such names");
    const wrong = await graft(["inspect", florence2, "--naming", "older"]);
    expect(wrong.stderr).toContain("--naming must be one of native, remote-code");
  });
});

describe("older names that were given", () => {
  const regex = "vision_tower\\.blocks\\.\\d+\\.0\\.spatial_block\\.window_attn\\.fn\\.(qkv|proj)";

  test.each([["select"], ["explain"]])("graft %s applies them, and says so", async (command) => {
    const { code, json } = await graft([command, florence2, "--target-modules", regex, "--json"]);
    expect(code).toBe(0);
    const { warnings, targets, config } = json<Selected>();
    expect(warnings).toContainEqual({
      code: "older-names",
      message: expect.stringContaining("applied to the 8 modules") as unknown,
    });
    if (command === "explain") return;
    expect(names(targets)).toHaveLength(8);
    expect(targets[0]!.name).toBe("model.vision_tower.blocks.0.0.spatial_block.window_attn.qkv");
    expect(JSON.stringify(config["target_modules"])).not.toContain("fn");
  });

  test("in a selection file with groups", async () => {
    const file = join(folder, "graft.yaml");
    writeFileSync(
      file,
      "groups:\n  - target_modules: [fn.qkv]\n    r: 3\n  - target_modules: [net.fc1]\n    r: 5\n",
    );
    const { code, json } = await graft(["select", florence2, "--config", file, "--json"]);
    expect(code).toBe(0);
    const { targets } = json<Selected>();
    expect(new Set(targets.map(({ name, r }) => `${name.split(".").at(-1)} ${r}`))).toEqual(
      new Set(["qkv 3", "fc1 5"]),
    );
  });

  test("are taken as they are where older names are asked for", async () => {
    const given = ["--target-modules", "window_attn.fn.qkv", "--naming", "remote-code", "--json"];
    const { json } = await graft(["select", florence2, ...given]);
    const { config, warnings } = json<Selected>();
    expect(config["target_modules"]).toEqual(["window_attn.fn.qkv"]);
    expect(warnings).toEqual([]);
  });

  test("beside native names are warned of", async () => {
    const { json } = await graft(["select", florence2, "--target-modules", "qkv,dw", "--json"]);
    expect(json<Selected>().warnings).toContainEqual({
      code: "older-names-unused",
      message: expect.stringContaining('"dw" (here conv1, conv2)') as unknown,
    });
  });

  test("of an adapter that says that it is of remote code count first", async () => {
    const adapter = join(olderVectors, "adapters/vision-list");
    const { json } = await graft(["select", olderConfig, "--config", adapter, "--json"]);
    const { targets, warnings } = json<Selected>();
    expect(names(targets)).toContain("model.vision_tower.convs.0.conv");
    expect(warnings.map(({ code }) => code)).toContain("older-names");
  });

  test("that are in neither layout fail as ever", async () => {
    const { code, json } = await graft(["select", florence2, "--target-modules", "query", "--json"]);
    expect(code).toBe(2);
    expect(json<ErrorDocument>().error.code).toBe("no-match");
  });
});

describe("the other commands", () => {
  test("graft inspect shows the older class's modules, as PyTorch lists them", async () => {
    const { code, json } = await graft(["inspect", olderConfig, "--naming", "remote-code", "--json"]);
    expect(code).toBe(0);
    const recorded = JSON.parse(
      gunzipSync(readFileSync(join(olderVectors, "tree.json.gz"))).toString("utf8"),
    ) as { modules: [string, string][] };
    expect(
      json<{ modules: { name: string; className: string }[] }>().modules.map((m) => [m.name, m.className]),
    ).toEqual(recorded.modules.map(([name, className]) => [name, className]));
  });

  test("graft init writes the adapter that it would write natively, under the older names", async () => {
    const flags = ["--target-modules", "qkv,q_proj", "--modules-to-save", "image_proj_norm", "--seed", "3"];
    const [native, older] = [join(folder, "native"), join(folder, "older")];
    // of a checkpoint in the older layout, whose norm is copied
    const results = await Promise.all([
      graft(["init", checkpoint, ...flags, "--output", native]),
      graft(["init", checkpoint, ...flags, "--naming", "remote-code", "--output", older]),
    ]);
    expect(results.map(({ code, stderr }) => [code, stderr])).toEqual([
      [0, ""],
      [0, ""],
    ]);
    const load = async (location: string) =>
      PeftModel.fromPretrained(await AutoModelForImageTextToText.fromPretrained(florence2), location);
    const [a, b] = await Promise.all([load(native), load(older)]);
    expect([a.naming, b.naming]).toEqual(["native", "remote-code"]);
    for (const peft of [a, b]) await peft.materialize();
    expect([...b.stateDict()].sort()).toEqual([...a.stateDict()].sort());
    const config = JSON.parse(readFileSync(join(older, "adapter_config.json"), "utf8")) as Record<
      string,
      unknown
    >;
    expect(config["auto_mapping"]).toBeNull();
    expect(await onOlderClass(config)).toHaveLength(names(a.selection.targets).length);
  });

  test("graft init --config-only", async () => {
    const output = join(folder, "config");
    const flags = ["--target-modules", "conv1", "--r", "48", "--naming", "remote-code", "--config-only"];
    expect((await graft(["init", florence2, ...flags, "--output", output])).code).toBe(0);
    const config = JSON.parse(readFileSync(join(output, "adapter_config.json"), "utf8")) as Record<
      string,
      unknown
    >;
    expect((await onOlderClass(config)).every((name) => name.endsWith("conv1.fn.dw"))).toBe(true);
  });

  test("graft synthesize takes either names and answers in those that were asked for", async () => {
    const input =
      "vision_tower.blocks.0.0.spatial_block.conv1.fn.dw\nmodel.language_model.encoder.layers.0.fc1\n";
    const [native, older] = await Promise.all([
      graft(["synthesize", florence2, "--names", "-", "--r", "8", "--json"], { input }),
      graft(["synthesize", florence2, "--names", "-", "--r", "8", "--naming", "remote-code", "--json"], {
        input,
      }),
    ]);
    expect(names(native.json<Selected>().targets)).toEqual([
      "model.vision_tower.blocks.0.0.spatial_block.conv1",
      "model.language_model.encoder.layers.0.fc1",
    ]);
    const { config, targets } = older.json<Selected>();
    expect(names(targets)).toEqual([
      "vision_tower.blocks.0.0.spatial_block.conv1.fn.dw",
      "language_model.model.encoder.layers.0.fc1",
    ]);
    expect(await onOlderClass(config)).toEqual(names(targets));
    const without = await graft(["synthesize", florence2, "--names", "-", "--naming", "remote-code"], {
      input: "model.multi_modal_projector.image_projection\n",
    });
    expect(without.stderr).toContain("bare parameter");
  });
});

describe("a checkpoint that only its own code can build", () => {
  const unknown = join(folder, "unknown");
  cpSync(checkpoint, unknown, { recursive: true });
  const file = join(unknown, "config.json");
  const config = JSON.parse(readFileSync(file, "utf8")) as {
    vision_config: { image_pos_embed: { type: string } };
  };
  config.vision_config.image_pos_embed.type = "sine";
  writeFileSync(file, JSON.stringify(config));
  const bare = join(folder, "bare");
  cpSync(unknown, bare, { recursive: true });
  rmSync(join(bare, "model.safetensors"));

  test.each([
    ["inspect", []],
    ["select", ["--target-modules", "fn.qkv"]],
    ["explain", ["--target-modules", "fn.qkv", "--naming", "remote-code"]],
  ])("graft %s infers its modules, and says why", async (command, flags) => {
    const { code, stdout, stderr } = await graft([command, unknown, ...flags]);
    expect(code).toBe(0);
    expect(stderr).toContain('image_pos_embed.type is "sine"');
    expect(stdout).toContain("window_attn");
  });

  test.each([
    ["inspect", []],
    ["select", ["--target-modules", "qkv"]],
    ["explain", ["--target-modules", "qkv"]],
    ["init", ["--target-modules", "qkv", "--output", join(folder, "never")]],
  ])("graft %s without weights says what to do", async (command, flags) => {
    const { code, stderr } = await graft([command, bare, ...flags]);
    expect(code).toBe(2);
    expect(stderr).toContain(
      "a Florence-2 that is written for its own code, in a form that Graft does not know",
    );
    expect(stderr).toContain("convert_florence2_original_pytorch_to_hf.py");
    expect(stderr).not.toContain("    at ");
  });
});
