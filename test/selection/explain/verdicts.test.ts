/** The verdict of every explanation against what selectTargets selects. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { GraftError } from "../../../src/errors.ts";
import {
  diffSelections,
  Explainer,
  lintSelection,
  type ModuleTree,
  matrixOf,
  type Selection,
  type SelectionConfig,
  selectTargets,
} from "../../../src/selection/index.ts";
import { leafOf } from "../../../src/selection/python.ts";
import { type SelectionVectorFile, toConfig } from "../../conformance/selection-vectors.ts";
import { findSkeleton, readVectors, vectorFiles } from "../../conformance/vector-files.ts";

const vectors = join(import.meta.dirname, "../../vectors");
const skeletons = readdirSync(join(vectors, "skeletons"))
  .filter((name) => name.endsWith(".json.gz"))
  .map((name) => findSkeleton(name.replace(".json.gz", ""), join(vectors, "selection/x.json.gz")));

function checkVerdicts(tree: ModuleTree, config: SelectionConfig): "selected" | "failed" {
  let selection: Selection | undefined;
  let failure: GraftError | undefined;
  try {
    selection = selectTargets(tree, config);
  } catch (error) {
    if (!(error instanceof GraftError)) throw error;
    failure = error;
  }
  const explainer = new Explainer(tree, config);
  const all = explainer.all();
  expect(all.every(({ reason }) => reason.length > 0)).toBe(true);
  if (selection === undefined) {
    expect(explainer.failure?.code).toBe(failure!.code);
    expect(() => lintSelection(tree, config)).not.toThrow();
    expect(all.every((explanation) => explanation.failure?.code === failure!.code)).toBe(true);
    return "failed";
  }
  const taken = all.filter(({ selected }) => selected);
  const order = (a: { name: string }, b: { name: string }) => (a.name < b.name ? -1 : 1);
  const expected = [...selection.targets, ...selection.targetParameters].map(
    ({ name, r, alpha, scaling }) => ({
      name,
      r,
      alpha,
      scaling,
    }),
  );
  checkCounts(tree, config, selection);
  expect(taken.map(({ name, r, alpha, scaling }) => ({ name, r, alpha, scaling })).sort(order)).toEqual(
    expected.sort(order),
  );
  return "selected";
}

/** What holds of every selection: the matrix counts each target once, and nothing differs from itself. */
function checkCounts(tree: ModuleTree, config: SelectionConfig, selection: Selection): void {
  const { rows } = matrixOf(tree, selection);
  const count = (option: string) =>
    rows.filter((row) => row.option === option).reduce((sum, { total }) => sum + total, 0);
  expect([count("targetModules"), count("targetParameters")]).toEqual([
    selection.targets.length,
    selection.targetParameters.length,
  ]);
  for (const { counts, outside, total } of rows)
    expect(counts.flat().reduce((sum, cell) => sum + cell, outside)).toBe(total);
  expect(diffSelections(tree, selection, config)).toMatchObject({ isEmpty: true, lines: [] });
  for (const { code, message } of lintSelection(tree, config, selection))
    expect([code, message]).toEqual([expect.stringMatching(/^[a-z-]+$/), expect.stringMatching(/^.+\.$/)]);
}

describe("a verdict is what selectTargets selects", () => {
  test.each(vectorFiles(join(vectors, "selection")))("for recorded configurations: %s", (path) => {
    const file = readVectors(path) as SelectionVectorFile;
    const tree = findSkeleton(file.skeleton, path);
    const step = Math.max(1, Math.floor(file.vectors.length / 60));
    const outcomes = file.vectors
      .filter((_, index) => index % step === 0)
      .map((vector) => checkVerdicts(tree, toConfig(vector)));
    expect(outcomes).toContain("selected");
  });

  test.each(skeletons.map((tree) => [tree.name, tree] as const))("for random ones: %s", (_, tree) => {
    const names = tree.modules.map(({ name }) => name).filter((name) => name !== "");
    const leaf = fc.constantFrom(...new Set(names.map(leafOf)));
    const tail = fc
      .tuple(fc.constantFrom(...names), fc.integer({ min: 1, max: 3 }))
      .map(([name, parts]) => name.split(".").slice(-parts).join("."));
    const linear = tree.modules
      .filter(({ kind }) => kind === "linear" || kind === "conv1d_hf" || kind === "embedding")
      .map(({ name }) => name);
    const target = fc.oneof(
      { weight: 6, arbitrary: fc.constantFrom(...new Set(linear.map(leafOf))) },
      leaf,
      tail,
    );
    const list = fc.uniqueArray(target, { minLength: 1, maxLength: 4 });
    const long = fc.uniqueArray(fc.constantFrom(...linear), {
      minLength: Math.min(20, linear.length),
      maxLength: 40,
    });
    const regex = list.map((entries) => `.*\\.(${entries.join("|").replaceAll(".", "\\.")})`);
    const config = fc.record(
      {
        targetModules: fc.oneof(
          { weight: 5, arbitrary: list },
          { weight: 2, arbitrary: long },
          regex,
          fc.constantFrom("all-linear", null, "dummy-target-modules"),
        ),
        excludeModules: fc.oneof(fc.uniqueArray(fc.oneof(leaf, tail), { maxLength: 2 }), regex),
        layersToTransform: fc.oneof(
          fc.array(fc.nat({ max: 6 }), { minLength: 1, maxLength: 3 }),
          fc.nat({ max: 3 }),
        ),
        modulesToSave: fc.uniqueArray(leaf, { minLength: 1, maxLength: 1 }),
        ensureWeightTying: fc.boolean(),
        taskType: fc.constantFrom(null, "SEQ_CLS" as const, "FEATURE_EXTRACTION" as const),
        rankPattern: fc.dictionary(leaf, fc.integer({ min: 1, max: 9 }), { maxKeys: 1 }),
      },
      { requiredKeys: ["targetModules"] },
    );
    fc.assert(
      fc.property(config, (random) => {
        const { layersToTransform: layers, ...rest } = random;
        checkVerdicts(
          tree,
          typeof random.targetModules === "string" || layers === undefined
            ? rest
            : { ...rest, layersToTransform: layers },
        );
      }),
      { numRuns: 25 },
    );
  });
});
