import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { beforeAll, describe, expect, it } from "vitest";
import { dequantizeLocations, quantizeLocations } from "../../../src/processing/florence2/locations.ts";
import { parsePostProcessor } from "../../../src/processing/florence2/post-processor.ts";
import {
  Florence2PostProcessor,
  Florence2Processor,
  florence2Tasks,
  formatLocations,
} from "../../../src/processing/index.ts";

const folder = new URL("../../vectors/processing/", import.meta.url);

type Outcome = { result?: unknown; error?: string };
type Size = [number, number];
const recorded = JSON.parse(
  gunzipSync(readFileSync(new URL("post-processing.json.gz", folder))).toString(),
) as {
  cases: { text: string; size: Size; tasks: Record<string, Outcome> }[];
  areas: { config: unknown; cases: (Outcome & { text: string; size: Size })[] };
  sequences: (Outcome & { sequence: number[]; task: string; size: Size })[];
  quantized: { size: Size; values: number[][]; quantized: number[][]; dequantized: number[][] }[];
};

let processor: Florence2Processor;
beforeAll(async () => {
  processor = await Florence2Processor.fromPretrained(fileURLToPath(new URL("current", folder)));
});

function outcome(action: () => unknown): unknown {
  try {
    return action();
  } catch (error) {
    return (error as { code?: string }).code;
  }
}

describe("answers equal the reference's", () => {
  const tasks = new Set(recorded.cases.flatMap((entry) => Object.keys(entry.tasks)));

  it("for every task", () => {
    expect([...tasks].sort()).toEqual([...Object.keys(florence2Tasks), "<OTHER>"].sort());
  });

  it.each([...tasks])("%s", (task) => {
    for (const { text, size, tasks } of recorded.cases) {
      const expected = tasks[task];
      if (expected === undefined) continue;
      const answer = outcome(() => processor.postProcessGeneration(text, { task, imageSize: size })[task]);
      expect({ text, answer }).toEqual({
        text,
        answer: expected.error === undefined ? expected.result : "bad-location",
      });
    }
  });

  it("for token ids", () => {
    for (const { sequence, task, size, result } of recorded.sequences)
      expect(processor.postProcessGeneration(sequence, { task, imageSize: size })[task]).toEqual(result);
  });

  it("with a pattern and a least area of the checkpoint's own", () => {
    const own = new Florence2PostProcessor(parsePostProcessor(recorded.areas.config, { file: "c.json" }));
    for (const { text, size, result, error } of recorded.areas.cases) {
      const answer = outcome(() => own.parse(text, "<OCR_WITH_REGION>", size));
      const quads = result as { quad_box: number[]; text: string }[] | undefined;
      expect({ text, answer }).toEqual({
        text,
        answer:
          error === undefined
            ? { quad_boxes: quads!.map((quad) => quad.quad_box), labels: quads!.map((quad) => quad.text) }
            : "bad-location",
      });
    }
    expect(() => own.parse("a", "<OD>", [1, 1])).toThrow(
      /post_processor_config has no "description_with_bboxes"/,
    );
  });
});

describe("locations", () => {
  it("are quantized as in the reference, and back", () => {
    for (const { size, values, quantized, dequantized } of recorded.quantized) {
      expect(values.map((coordinates) => quantizeLocations(coordinates, size))).toEqual(quantized);
      expect(quantized.map((bins) => dequantizeLocations(bins, size))).toEqual(dequantized);
    }
  });

  it("are written as prompts take them", () => {
    expect(formatLocations([34, 160, 597, 371], [640, 480])).toBe("<loc_53><loc_333><loc_932><loc_772>");
  });
});

describe("what cannot be read", () => {
  it("an answer with locations needs the picture's size", () => {
    expect(() => processor.postProcessGeneration("a<loc_1>", { task: "<OD>" })).toThrow(
      "The answer to <OD> has locations, which need the picture's size; got undefined. Give imageSize: [width, height].",
    );
    expect(() => processor.postProcessGeneration("", { task: "<OD>", imageSize: [0, 5] })).toThrow(
      /picture's size/,
    );
  });

  it.each([
    [[], '"post_processor_config" must be an object'],
    [{ phrase_grounding: { banned_grounding_tokens: "it" } }, '"banned_grounding_tokens" must be a list'],
    [{ ocr: { PATTERN: "(a)" } }, "nine groups"],
    [{ ocr: { PATTERN: `^${"(a)".repeat(9)}` } }, "may not use ^"],
    [{ ocr: { PATTERN: 3 } }, '"PATTERN" must be text'],
    [{ ocr: { AREA_THRESHOLD: "1" } }, '"AREA_THRESHOLD" must be a number'],
  ])("a configuration %j", (config, message) => {
    expect(() => parsePostProcessor(config, { file: "processor_config.json" })).toThrow(message);
  });
});
