import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { scoreTexts, type TextPair, type TextScores } from "../../src/evaluation/index.ts";
import { type ErrorDocument, graft, scratch, tinyLlama } from "./support.ts";

const directory = scratch();

test("eval --generate writes what the rows say, as generate does, and scores it", async () => {
  const data = join(directory, "rows.jsonl");
  const prompts = ["In the beginning God", "And it came to"];
  const rows = prompts.map((prompt) => ({ prompt, completion: " created the heaven" }));
  writeFileSync(data, rows.map((row) => JSON.stringify(row)).join("\n"));
  const file = join(directory, "written.jsonl");
  const { code, stderr, json } = await graft([
    ...["eval", tinyLlama, "--data", data, "--generate", "--max-new-tokens", "6"],
    ...["--predictions", file, "--json"],
  ]);
  expect(code, stderr).toBe(0);
  const pairs = readFileSync(file, "utf8")
    .trim()
    .split("\n")
    .map((line): TextPair => JSON.parse(line));
  expect(pairs.map(({ reference }) => reference.trim())).toEqual([
    "created the heaven",
    "created the heaven",
  ]);
  const { seconds, ...scores } = json<{ generation: TextScores & { seconds: number } }>().generation;
  expect(scores).toEqual(scoreTexts(pairs));
  expect(seconds).toBeGreaterThan(0);
  for (const [i, prompt] of prompts.entries()) {
    const alone = await graft([
      ...["generate", tinyLlama, "--prompt", prompt, "--max-new-tokens", "6", "--temperature", "0", "--json"],
    ]);
    expect(alone.json<{ text: string }>().text.trim()).toBe(pairs[i]!.generated.trim());
  }
});

test("rows of text alone leave nothing to write about", async () => {
  const data = join(directory, "text.jsonl");
  writeFileSync(data, JSON.stringify({ text: "In the beginning" }));
  const { code, json } = await graft(["eval", tinyLlama, "--data", data, "--generate", "--json"]);
  expect(code).toBe(2);
  expect(json<ErrorDocument>().error).toMatchObject({ code: "no-prompt" });
});

test("flags of generation need --generate", async () => {
  const { code, stderr } = await graft(["eval", tinyLlama, "--data", "x.jsonl", "--num-beams", "2"]);
  expect(code).toBe(2);
  expect(stderr).toContain("--num-beams: only with --generate");
});
