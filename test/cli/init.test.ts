import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type ErrorDocument, graft, scratch, tinyLlama, vectors } from "./support.ts";

const folder = scratch();
const flags = ["--target-modules", "q_proj,v_proj", "--layers-to-transform", "4,5", "--r", "4"];

describe("graft init", () => {
  test("writes the two files of an adapter", async () => {
    const output = join(folder, "fresh");
    const { code, stdout } = await graft(["init", tinyLlama, ...flags, "--output", output]);
    expect(code).toBe(0);
    expect(readdirSync(output).sort()).toEqual(["adapter_config.json", "adapter_model.safetensors"]);
    expect(stdout).toBe(
      `targets: q_proj, v_proj in layers 4–5\ntrainable params: 3,584 (14.3 kB)\nwrote adapter_model.safetensors and adapter_config.json to ${output}\n`,
    );
    const again = await graft(["init", tinyLlama, ...flags, "--output", output, "--json"]);
    expect(again.code).toBe(2);
    expect(again.json<ErrorDocument>().error.code).toBe("exists");
    const other = ["--seed", "1", "--overwrite"];
    const before = readFileSync(join(output, "adapter_model.safetensors"));
    expect((await graft(["init", tinyLlama, ...flags, "--output", output, ...other])).code).toBe(0);
    expect(readFileSync(join(output, "adapter_model.safetensors")).equals(before)).toBe(false);
  });

  test("of a skeleton writes weights too, for only shapes are needed", async () => {
    const output = join(folder, "whisper");
    const skeleton = join(vectors, "skeletons/whisper-tiny.json.gz");
    const { code, json } = await graft([
      ...["init", skeleton, "--target-modules", "q_proj", "--python", "--json", "--output", output],
    ]);
    expect(code).toBe(0);
    const document = json<{ targets: object[]; python: string; config: { auto_mapping: object } }>();
    expect(document.targets.length).toBe(12);
    expect(document.python).toContain('target_modules=["q_proj"]');
    expect(document.config.auto_mapping).toEqual({
      base_model_class: "WhisperForConditionalGeneration",
      parent_library: "transformers.models.whisper.modeling_whisper",
    });
  });

  test("leaves nothing behind when it fails", async () => {
    const output = join(folder, "nothing");
    const skeleton = join(vectors, "skeletons/whisper-tiny.json.gz");
    const saved = ["--target-modules", "q_proj", "--modules-to-save", "proj_out"];
    const { code, stderr } = await graft(["init", skeleton, ...saved, "--output", output]);
    expect(code).toBe(2);
    expect(stderr).toContain("proj_out.weight");
    expect(existsSync(output)).toBe(false);
    const only = await graft(["init", skeleton, ...saved, "--output", output, "--config-only"]);
    expect(only.code).toBe(0);
    expect(readdirSync(output)).toEqual(["adapter_config.json"]);
  });
});
