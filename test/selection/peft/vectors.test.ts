import { basename, join } from "node:path";
import { describe, expect, test } from "vitest";
import { runSelectionVector, type SelectionVectorFile } from "../../conformance/selection-vectors.ts";
import { findSkeleton, readVectors, vectorFiles } from "../../conformance/vector-files.ts";

const files = vectorFiles(join(import.meta.dirname, "../../vectors/selection"));

/** 25 models of real size, 6 small ones for the edges; a lost file must not go unnoticed. */
test("31 models are recorded", () => expect(files).toHaveLength(31));

describe.each(files.map((path) => [basename(path, ".json.gz"), path] as const))("%s", (_, path) => {
  const { skeleton, vectors } = readVectors(path) as SelectionVectorFile;
  const tree = findSkeleton(skeleton, path);
  const categories = new Set(vectors.map(({ cat }) => cat));

  test.each([...categories])("selects what PEFT selects: %s", (category) => {
    for (const vector of vectors.filter(({ cat }) => cat === category))
      expect({ id: vector.id, config: vector.config, mismatch: runSelectionVector(tree, vector) }).toEqual({
        id: vector.id,
        config: vector.config,
        mismatch: undefined,
      });
  });
});

describe("the comparison itself", () => {
  const path = files.find((file) => file.endsWith("gpt2.json.gz"))!;
  const { skeleton, vectors } = readVectors(path) as SelectionVectorFile;
  const tree = findSkeleton(skeleton, path);
  const vector = vectors.find(({ expect: wanted }) => wanted["state_dict"] !== undefined)!;

  test.each([
    ["targets", [0]],
    ["r", 7],
    ["scaling", 0.123],
    ["layer", "Embedding"],
    ["fan_in_fan_out", "no"],
    ["saved", ["x"]],
    ["token_wrapped", ["x"]],
    ["trainable", 1],
    ["total", 1],
    ["trainable_extra", ["x"]],
    ["state_dict", [["x", [1]]]],
    ["state_dict_sha256", "0"],
    ["config_after", { r: 3 }],
    ["warnings", [["UserWarning", "no-such"]]],
    ["state_dict_warnings", [["UserWarning", "no-such"]]],
  ])("notices another %s", (field, value) => {
    const tampered = { ...vector, expect: { ...vector.expect, [field]: value } };
    expect(runSelectionVector(tree, tampered)?.expected).toHaveProperty(field);
  });

  test.each([
    ["stage", { stage: "config" }],
    ["type", { error: ["TypeError", "no-match"] }],
    ["code", { error: ["NoMatchingPeftModuleError", "other"] }],
    ["warnings", { warnings: [["UserWarning", "no-such"]] }],
  ])("notices another %s of an error", (_, change) => {
    const failing = vectors.find(({ expect: wanted }) => (wanted["error"] as string[])?.[1] === "no-match")!;
    expect(runSelectionVector(tree, { ...failing, expect: { ...failing.expect, ...change } })).toBeDefined();
  });
});
