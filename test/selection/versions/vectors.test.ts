import { createHash } from "node:crypto";
import { join } from "node:path";
import { expect, test } from "vitest";
import { SelectionError } from "../../../src/errors.ts";
import {
  type ModuleTree,
  parseSkeleton,
  type SelectionConfig,
  selectTargets,
} from "../../../src/selection/index.ts";
import { changesAfter, rulesBefore } from "../../../src/selection/versions/changes.ts";
import { chooseByRules } from "../../../src/selection/versions/choose.ts";
import { currentRules } from "../../../src/selection/versions/rules.ts";
import { currentRelease, parseRelease } from "../../../src/selection/versions/version.ts";
import { type SelectionVectorFile, toConfig } from "../../conformance/selection-vectors.ts";
import { findSkeleton, readVectors, vectorFiles } from "../../conformance/vector-files.ts";

type Outcome = {
  error?: string;
  targets?: [name: string, r: number, alpha: number][];
  count?: number;
  sha256?: string;
};
type Vectors = {
  toys: Record<string, unknown>;
  outcomes: Outcome[];
  configurations: { skeleton: string; config: Record<string, unknown>; releases: Record<string, number> }[];
};

const file = join(import.meta.dirname, "../../vectors/versions/vectors.json.gz");
const { toys, outcomes, configurations } = readVectors(file) as Vectors;

const treeOf = (name: string): ModuleTree =>
  name in toys ? parseSkeleton(toys[name]) : findSkeleton(name, file);

/** Older releases shared the defaults r 8, alpha 16 of the recording. */
const configOf = (fields: Record<string, unknown>): SelectionConfig => ({
  r: 8,
  loraAlpha: 16,
  ...toConfig({ config: fields }),
});

function choose(tree: ModuleTree, config: SelectionConfig, version: string): Outcome {
  const release = parseRelease(version)!;
  const rules = rulesBefore(currentRules, changesAfter(release));
  try {
    return compact(
      [...chooseByRules(tree, config, rules, release)].map(([name, { r, alpha }]) => [name, r, alpha]),
    );
  } catch (error) {
    if (!(error instanceof SelectionError)) throw error;
    const { pythonType } = error.details;
    return { error: error.code === "unsupported-module" ? "Refused" : String(pythonType) };
  }
}

const compact = (targets: [string, number, number][]): Outcome =>
  targets.length <= 40
    ? { targets }
    : {
        count: targets.length,
        sha256: createHash("sha256").update(JSON.stringify(targets)).digest("hex"),
      };

test.each(Object.keys(configurations[0]!.releases))(
  "PEFT %s chooses what its own source chooses",
  (version) => {
    for (const { skeleton, config, releases } of configurations) {
      const { at: _, ...expected } = outcomes[releases[version]!] as Outcome & { at: number };
      const actual = choose(treeOf(skeleton), configOf(config), version);
      const what = `${skeleton} ${JSON.stringify(config)} by ${version}`;
      expect.soft({ what, ...actual }).toEqual({ what, ...expected });
    }
  },
);

test("the current rules are those of the engine, on every conformance vector that selects", () => {
  const release = parseRelease(currentRelease)!;
  let compared = 0;
  for (const path of vectorFiles(join(import.meta.dirname, "../../vectors/selection"))) {
    const { skeleton, vectors: cases } = readVectors(path) as SelectionVectorFile;
    for (const { config: fields, as = {} } of cases
      .filter(({ expect: wanted }) => wanted["error"] === undefined)
      .slice(0, 60)) {
      const tree = findSkeleton(skeleton, path);
      const config = toConfig({ config: fields, as });
      const { targets, targetParameters } = selectTargets(tree, config);
      const expected = new Map(
        [...targets, ...targetParameters].map(({ name, r, alpha }) => [name, { r, alpha }]),
      );
      const actual = chooseByRules(tree, config, currentRules, release);
      expect([...actual].sort()).toEqual([...expected].sort());
      compared++;
    }
  }
  expect(compared).toBeGreaterThan(500);
});
