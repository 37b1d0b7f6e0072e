import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  parseSkeleton,
  ruleChanges,
  type SelectionConfig,
  versionDifferences,
} from "../../../src/selection/index.ts";
import { defaultTargetsSince } from "../../../src/selection/versions/default-targets.ts";
import { compareReleases, parseRelease } from "../../../src/selection/versions/version.ts";
import { findSkeleton } from "../../conformance/vector-files.ts";
import { makeMoeTree } from "../peft/moe-tree.ts";

const moe = makeMoeTree(3, 4);
const llama = findSkeleton("llama-3.2-1b", import.meta.filename);
const expertsOfLayer1: SelectionConfig = { targetModules: ["up_proj"], layersToTransform: [1] };

describe("what differs", () => {
  test("the first number of a path, not the last, is the layer since 0.20", () => {
    const found = versionDifferences(moe, expertsOfLayer1, "0.19.1");
    expect(found).toMatchObject({
      version: "0.19.1",
      wrote: "PEFT 0.19.1",
      rulesOf: "0.19.1",
      differs: true,
    });
    expect(found.added).toEqual([0, 2, 3].map((expert) => `model.layers.1.mlp.experts.${expert}.up_proj`));
    expect(found.removed).toEqual([0, 2].map((layer) => `model.layers.${layer}.mlp.experts.1.up_proj`));
    expect(found.changes.map(({ id }) => id)).toEqual(["first-layer-index"]);
    expect(found.message).toContain("written by PEFT 0.19.1");
    expect(found.message).toContain("2 not chosen by 0.21");
    expect(found.message).toContain("#3318");
    expect(versionDifferences(moe, expertsOfLayer1, "0.20.0").differs).toBe(false);
  });

  test("a development version has the rules of the release before", () => {
    expect(versionDifferences(moe, expertsOfLayer1, "0.19.2.dev0@046e32bf1").differs).toBe(true);
    expect(versionDifferences(moe, expertsOfLayer1, "0.20.0.dev0").differs).toBe(true);
    expect(versionDifferences(moe, expertsOfLayer1, "0.20.1.dev0").differs).toBe(false);
  });

  test("layersPattern needed a prefix before 0.21", () => {
    const bare = parseSkeleton({
      modules: [
        ["", "LlamaModel", "module", null, null, []],
        ["layers", "ModuleList", "modulelist", null, null, []],
        ...[0, 1].flatMap((i) => [
          [`layers.${i}`, "Layer", "module", null, null, []],
          [`layers.${i}.q_proj`, "Linear", "linear", 4, 4, [["weight", [4, 4]]]],
        ]),
      ],
    });
    const found = versionDifferences(
      bare,
      { targetModules: ["q_proj"], layersToTransform: [1], layersPattern: "layers" },
      "0.20.0",
    );
    expect(found).toMatchObject({ differs: true, added: ["layers.1.q_proj"], removed: [], nowFails: null });
    expect(found.thenFails).toMatch(/none of the target modules/);
    expect(found.message).toContain("would fail");
    expect(found.changes.map(({ id }) => id)).toEqual(["layers-pattern-prefix"]);
  });

  test("ranks alone may differ", () => {
    const config: SelectionConfig = { targetModules: ["q_proj", "lm_head"], rankPattern: { "^lm_head": 2 } };
    const found = versionDifferences(llama, config, "0.14.0");
    expect(found.changedRanks).toEqual([
      { name: "lm_head", before: { r: 8, alpha: 8 }, now: { r: 2, alpha: 8 } },
    ]);
    expect(found).toMatchObject({ added: [], removed: [] });
    expect(found.changes.map(({ id }) => id)).toEqual(["pattern-tail"]);
  });

  test("defaults that came later", () => {
    const qwen = findSkeleton("qwen2.5-0.5b", import.meta.filename);
    const found = versionDifferences(qwen, {}, "0.11.1");
    expect(found.thenFails).toMatch(/no default target modules/);
    expect(found.changes.map(({ id, since }) => [id, since])).toEqual([["default-targets", "0.12.0"]]);
    expect(versionDifferences(qwen, {}, "0.12.0").differs).toBe(false);
  });

  test("what 0.21 refuses and the writer did not", () => {
    const mamba = findSkeleton("mamba-130m", import.meta.filename);
    const found = versionDifferences(mamba, { targetModules: ["out_proj"] }, "0.15.2");
    expect(found.nowFails).toMatch(/Mamba/);
    expect(found.message).toContain("0.21.0 fails");
    expect(found.removed.length).toBe(24);
  });

  test("several changes are told apart", () => {
    const config: SelectionConfig = {
      targetModules: ["up_proj"],
      layersToTransform: [1],
      rankPattern: { "^model.*": 3 },
    };
    const { changes } = versionDifferences(moe, config, "0.14.0");
    expect(changes.map(({ id }) => id)).toEqual(["first-layer-index", "pattern-tail"]);
  });

  test("a change that does not matter to the configuration is not named", () => {
    for (const { since } of ruleChanges)
      expect(versionDifferences(llama, { targetModules: ["q_proj", "v_proj"] }, since)).toMatchObject({
        differs: false,
        message: "",
        changes: [],
      });
  });
});

describe("who wrote it", () => {
  test("without peft_version, the last release that wrote none is compared", () => {
    for (const version of [undefined, null]) {
      const found = versionDifferences(moe, expertsOfLayer1, version);
      expect(found).toMatchObject({ version: null, rulesOf: "0.17.1", differs: true });
      expect(found.wrote).toContain("no peft_version");
      expect(found.message).toContain("The rules of 0.17.1");
    }
  });

  test.each(["0.21.0", "0.21.1", "0.21", "0.21.0.post1"])("%s has the same rules", (version) => {
    expect(versionDifferences(moe, expertsOfLayer1, version)).toMatchObject({ differs: false, message: "" });
  });

  test.each(["0.22.0", "0.21.1.dev0", "0.22.0.dev0@abc123", "1.0", "1.0.0rc1"])(
    "%s is newer: not known",
    (version) => {
      const found = versionDifferences(moe, expertsOfLayer1, version);
      expect(found).toMatchObject({ differs: false, rulesOf: null });
      expect(found.message).toMatch(/newer than 0\.21\.0.*not known/);
    },
  );

  test("0.2 is older than what is known", () => {
    expect(versionDifferences(moe, expertsOfLayer1, "0.2.0").message).toMatch(/older than 0\.3\.0/);
  });

  test.each([
    "",
    "latest",
    "0",
    "0.x",
    "v",
    "-1.0",
    "0.18.0 or so",
    "9".repeat(10_000),
    `0.${"1".repeat(400)}`,
    "\u0000",
  ])("%j is not a version", (version) => {
    const found = versionDifferences(moe, expertsOfLayer1, version);
    expect(found).toMatchObject({ version, differs: false, rulesOf: null, wrote: "unknown" });
    expect(found.message).toMatch(/is not a version of PEFT/);
    expect(found.message.length).toBeLessThan(300);
  });

  test("any text is answered", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (version) => {
        expect(versionDifferences(moe, expertsOfLayer1, version).version).toBe(version);
      }),
    );
  });

  test("releases are ordered as Python orders them", () => {
    const order = ["0.9.0", "0.10.0.dev0", "0.10.0", "0.10.1", "0.18.0rc0", "0.18.0", "1.0.0"];
    const releases = order.map((version) => parseRelease(version)!);
    expect([...releases].reverse().sort(compareReleases)).toEqual(releases);
    expect(parseRelease("V0.18.0+local")).toEqual({ major: 0, minor: 18, patch: 0, isPre: false });
  });
});

test("docs/peft-versions.md lists every change", () => {
  const page = readFileSync(join(import.meta.dirname, "../../../docs/peft-versions.md"), "utf8").replace(
    /\s+/g,
    " ",
  );
  for (const { since, what, reference } of ruleChanges) {
    expect(page).toContain(`| ${since} | ${what.replaceAll("|", "\\|")}`);
    expect(page).toContain(reference.split(",")[0]!.slice(1));
  }
  for (const [type, since] of Object.entries(defaultTargetsSince))
    expect(page).toMatch(new RegExp(`\\| ${since} \\|[^\\n]*${type}`));
});

test("changes are listed newest first", () => {
  const releases = ruleChanges.map(({ since }) => parseRelease(since)!);
  expect([...releases].sort((a, b) => compareReleases(b, a))).toEqual(releases);
  expect(new Set(ruleChanges.map(({ id }) => id)).size).toBe(ruleChanges.length);
});
