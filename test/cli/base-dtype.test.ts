import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { graft, scratch, tinyLlama } from "./support.ts";

const directory = scratch();
const data = join(directory, "rows.jsonl");

writeFileSync(data, JSON.stringify({ text: "In the beginning God created the heaven and the earth." }));
const env = { XDG_CACHE_HOME: directory };

const lossWith = async (dtype: string): Promise<number> => {
  const flags = ["--data", data, "--base-dtype", dtype, "--json"];
  const { code, stderr, json } = await graft(["eval", tinyLlama, ...flags], { env });
  expect(code, stderr).toBe(0);
  return json<{ loss: number }>().loss;
};

describe("--base-dtype", () => {
  test("changes an evaluation by little, and not by nothing", async () => {
    const full = await lossWith("fp32");
    for (const dtype of ["int8", "int4"]) {
      const difference = Math.abs((await lossWith(dtype)) / full - 1);
      expect(difference).toBeGreaterThan(0);
      expect(difference).toBeLessThan(0.05);
    }
  });

  test("checks the layers that write, with what they continue", async () => {
    const flags = ["--prompt", "In the", "--max-new-tokens", "2", "--base-dtype", "int8"];
    const { code, stderr } = await graft(["generate", tinyLlama, ...flags], { env });
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(/base weights: int8 in \d+ linear layers/);
    const cache = join(directory, "graft", "quantized");
    const files = readdirSync(cache).flatMap((folder) => readdirSync(join(cache, folder)));
    expect(files.filter((name) => name.startsWith("check-"))).toHaveLength(2); // that of the evaluation is one
  });
});
