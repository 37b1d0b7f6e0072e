import { describe, expect, test } from "vitest";
import { numberRanges } from "../../src/cli/fold-tree.ts";
import { moduleTreeView } from "../../src/cli/module-tree-view.ts";
import { printable } from "../../src/cli/style.ts";
import { findSkeleton } from "../conformance/vector-files.ts";

const tree = (name: string) => findSkeleton(name, import.meta.filename);
const lines = (text: string) => text.split("\n").map((line) => line.replace(/\s+/g, " "));

describe("moduleTreeView", () => {
  test("alike layers are one line, with what one of them has and the share of all", () => {
    const shown = lines(moduleTreeView(tree("qwen2.5-0.5b")));
    expect(shown).toHaveLength(17);
    expect(shown[0]).toBe("Qwen2ForCausalLM Qwen2ForCausalLM 494,032,768 100.0 %");
    expect(shown).toContain("│ ├─ layers.0–23 × 24 Qwen2DecoderLayer 14,912,384 × 24 72.4 %");
    expect(shown).toContain("│ │ │ ├─ q_proj linear [896, 896] 803,712 × 24 3.9 %");
    expect(shown.at(-1)).toBe("└─ lm_head linear [151936, 896] tied to model.embed_tokens");
  });

  test("items that differ stand apart, in nested lists too", () => {
    const t5 = lines(moduleTreeView(tree("t5-small"), { depth: 4 }));
    expect(t5.filter((line) => line.includes("T5Block"))).toEqual([
      "│ │ ├─ 0 T5Block 3,147,008 5.2 %",
      "│ │ └─ 1–5 × 5 T5Block 3,146,752 × 5 26.0 %",
      "│ │ ├─ 0 T5Block 4,196,096 6.9 %",
      "│ │ └─ 1–5 × 5 T5Block 4,195,840 × 5 34.7 %",
    ]);
    const florence = lines(moduleTreeView(tree("florence2-base")));
    expect(florence.some((line) => line.includes("2.0–8 × 9 Florence2VisionBlock"))).toBe(true);
  });

  test("marks are shown, and keep apart what is marked differently", () => {
    const marks = new Map([3, 4, 20].map((i) => [`model.layers.${i}.self_attn.q_proj`, "r=8"]));
    const shown = lines(moduleTreeView(tree("qwen2.5-0.5b"), { marks }));
    expect(shown.filter((line) => line.includes("Qwen2DecoderLayer"))).toEqual([
      expect.stringContaining("0–2, 5–19, 21–23 × 21 Qwen2DecoderLayer"),
      expect.stringContaining("3–4, 20 × 3 Qwen2DecoderLayer"),
    ]);
    expect(shown.filter((line) => line.endsWith("r=8"))).toEqual([
      "│ │ │ ├─ q_proj linear [896, 896] 803,712 × 3 0.5 % r=8",
    ]);
  });

  test("a filter keeps the way to what it names; a depth says where it cuts", () => {
    const only = (name: string) => name.endsWith(".down_proj");
    expect(lines(moduleTreeView(tree("qwen2.5-0.5b"), { only }))).toEqual([
      "Qwen2ForCausalLM Qwen2ForCausalLM 494,032,768 100.0 %",
      "└─ model Qwen2Model 494,032,768 100.0 %",
      " └─ layers.0–23 × 24 Qwen2DecoderLayer 14,912,384 × 24 72.4 %",
      " └─ mlp Qwen2MLP 13,074,432 × 24 63.5 %",
      " └─ down_proj linear [896, 4864] 4,358,144 × 24 21.2 %",
    ]);
    expect(lines(moduleTreeView(tree("qwen2.5-0.5b"), { depth: 1 }))[1]).toContain("model … Qwen2Model");
  });

  test("what has no parameters is left out unless it is marked", () => {
    expect(moduleTreeView(tree("qwen2.5-0.5b"))).not.toContain("act_fn");
    const marks = new Map([["model.layers.0.mlp.act_fn", "!"]]);
    expect(moduleTreeView(tree("qwen2.5-0.5b"), { marks })).toContain("act_fn");
  });
});

test.each([
  [[0, 1, 2, 3, 4, 5], "0–5"],
  [[0, 2, 4, 6], "0, 2, …, 6"],
  [[1, 2, 4], "1–2, 4"],
  [[7], "7"],
])("numberRanges(%j)", (numbers, text) => {
  expect(numberRanges(numbers)).toBe(text);
});

test("names are printed safely", () => {
  expect(printable("a\u001b[31mb\u202ec\n")).toBe("a\\u{1b}[31mb\\u{202e}c\\u{a}");
  expect(printable("x".repeat(100_000))).toHaveLength(161);
});
