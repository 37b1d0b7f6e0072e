import { basename } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SelectionError } from "../../../src/errors.ts";
import {
  compileSelection,
  type GroupSpec,
  type ModuleTree,
  selectTargets,
} from "../../../src/selection/index.ts";
import { Structure } from "../../../src/selection/structure/index.ts";
import { findSkeleton, vectorFiles } from "../../conformance/vector-files.ts";

/*
 * An independent, slow reading of groups: native regular expressions, and layers found in the names by themselves.
 */

const adaptable = new Set(["linear", "conv1d_hf", "conv1d", "conv2d", "conv3d", "embedding", "mha"]);

/** Mamba's kernels read these layers directly. */
const isFused = ({ modelType }: ModuleTree, name: string): boolean =>
  modelType === "mamba" && /(^|\.)(out_proj|conv1d)$/.test(name);

function matches(entry: string, name: string, isLinear: boolean): boolean {
  if (entry === "all-linear") return isLinear;
  if (entry.startsWith("regex:")) return new RegExp(`^(?:${entry.slice(6)})$`).test(name);
  const ends = name.split(".").map((_, i, parts) => parts.slice(i).join("."));
  if (!/[*{]/.test(entry)) return ends.includes(entry);
  const source = entry
    .split(/(\*\*\.|\*\*|\*|\{|\}|,)/)
    .map(
      (part) =>
        ({ "**.": "(.+\\.)?", "**": ".+", "*": "[^.]+", "{": "(", "}": ")", ",": "|" })[part] ??
        part.replaceAll(".", "\\."),
    )
    .join("");
  return ends.some((end) => new RegExp(`^(${source})$`).test(end));
}

/** `{list path: index}` of the lists around a module. */
const stepsOf = (name: string, lists: ReadonlySet<string>): [string, number][] =>
  name
    .split(".")
    .map((part, i, parts): [string, number] => [parts.slice(0, i).join("."), Number(part)])
    .filter(([path]) => lists.has(path));

/** Layers of a list of n: the few expressions that are generated below. */
function layersOf(expression: string, n: number): Set<number> {
  const all = Array.from({ length: n }, (_, i) => i);
  return new Set(
    {
      "-2:": all.slice(-2),
      ":3": all.slice(0, 3),
      odd: all.filter((i) => i % 2 === 1),
      "first 50%": all.slice(0, Math.round(n / 2)),
      "!0": all.slice(1),
      "0,-1": [...all.slice(0, 1), ...all.slice(-1)],
      all,
    }[expression],
  );
}
const expressions = ["-2:", ":3", "odd", "first 50%", "!0", "0,-1", "all"];

function expected(tree: ModuleTree, groups: readonly GroupSpec[]): Map<string, [number, number]> {
  const { lists, stacks } = new Structure(tree);
  const lengths = new Map(lists.map(({ path, indices }) => [path, indices.length]));
  const outer = new Set(stacks.map(({ path }) => path));
  const taken = new Map<string, [number, number]>();
  for (const { name, kind } of tree.modules) {
    const isLinear = (kind === "linear" || kind === "conv1d_hf") && name !== tree.outputEmbeddings;
    for (const group of groups) {
      const entries = group.targetModules as string[];
      const positive = entries.filter((entry) => !entry.startsWith("!"));
      const negative = entries.filter((entry) => entry.startsWith("!")).map((entry) => entry.slice(1));
      const excluded = [...negative, ...((group.excludeModules as string[] | undefined) ?? [])];
      const hit = (entry: string): boolean => matches(entry, name, isLinear);
      const isIn = (positive.length === 0 ? isLinear : positive.some(hit)) && !excluded.some(hit);
      if (name === "" || !adaptable.has(kind) || isFused(tree, name) || !isIn) continue;
      const { layers } = group;
      const steps = stepsOf(name, new Set(lengths.keys()));
      if (typeof layers === "string") {
        const step = steps.find(([path]) => outer.has(path));
        if (step === undefined || !layersOf(layers, lengths.get(step[0])!).has(step[1])) continue;
      } else if (layers !== undefined) {
        const named = steps.flatMap(([path, index]) => {
          const found = Object.entries(layers).find(([key]) => path === key || path.endsWith(`.${key}`));
          return found === undefined ? [] : [layersOf(found[1] as string, lengths.get(path)!).has(index)];
        });
        if (named.length === 0 || named.includes(false)) continue;
      }
      taken.set(name, [group.r ?? 8, group.loraAlpha ?? 8]);
    }
  }
  return taken;
}

const literal = (text: string): string => text.replace(/[.[\]{}()*+?^$|\\-]/g, "\\$&");

/** Groups that mean something to a model. */
function groupsFor(tree: ModuleTree): fc.Arbitrary<GroupSpec[]> {
  const able = tree.modules
    .filter(({ kind, name }) => adaptable.has(kind) && !isFused(tree, name))
    .map(({ name }) => name);
  const parts = (name: string): string[] => name.split(".");
  const name = fc.constantFrom(...able);
  const positive = fc.oneof(
    fc.constant("all-linear"),
    name.map((full) => parts(full).at(-1)!),
    name.map((full) => parts(full).slice(-2).join(".")),
    name,
    name.map((full) => ["*", parts(full).at(-1)!].join(".")),
    name.map((full) => `**.${parts(full).at(-2) ?? "*"}.*`),
    fc.tuple(name, name).map(([a, b]) => `{${parts(a).at(-1)},${parts(b).at(-1)}}`),
    name.map((full) => `regex:.*${literal(full.slice(-4))}`),
  );
  const entries = fc
    .tuple(
      fc.array(positive, { minLength: 1, maxLength: 3 }),
      fc.array(
        positive.map((entry) => `!${entry}`),
        { maxLength: 1 },
      ),
      fc.boolean(),
    )
    .map(([taken, left, isFirst]) => (isFirst ? [...left, ...taken] : [...taken, ...left]));
  const { lists, stacks } = new Structure(tree);
  const expression = fc.constantFrom(...expressions);
  const layers =
    stacks.length === 0
      ? fc.constant(undefined)
      : fc.oneof(
          fc.constant(undefined),
          expression,
          fc
            .uniqueArray(
              fc.tuple(fc.constantFrom(...lists.map(({ path }) => path).filter(Boolean)), expression),
              {
                minLength: 1,
                maxLength: 2,
                selector: ([path]) => path,
              },
            )
            // paths of which one is the end of another would name the same list twice
            .filter((pairs) => !pairs.some(([a]) => pairs.some(([b]) => a !== b && b.endsWith(`.${a}`))))
            .map((pairs) => Object.fromEntries(pairs)),
        );
  return fc.array(
    fc.record(
      {
        targetModules: entries,
        excludeModules: fc.array(positive, { maxLength: 1 }),
        layers,
        r: fc.constantFrom(4, 8, 16),
        loraAlpha: fc.constantFrom(8, 32),
      },
      { requiredKeys: ["targetModules"] },
    ) as fc.Arbitrary<GroupSpec>,
    { minLength: 1, maxLength: 3 },
  );
}

/** Groups that take nothing, and convolutions of more groups than ranks. */
const unavoidable = new Set(["no-match", "not-expressible", "unsupported-module", "no-layers"]);

describe("compiled groups select, under PEFT's rules, what the groups say", () => {
  const folder = new URL("../../vectors/skeletons", import.meta.url).pathname;
  const names = vectorFiles(folder).map((path) => basename(path, ".json.gz"));
  test.each(names)("%s", (name) => {
    const tree = findSkeleton(name, import.meta.filename);
    let compared = 0;
    fc.assert(
      fc.property(groupsFor(tree), (groups) => {
        let config: ReturnType<typeof compileSelection>["config"];
        try {
          config = compileSelection(tree, { groups }).config;
        } catch (error) {
          if (!(error instanceof SelectionError) || !unavoidable.has(error.code)) throw error;
          const isRank = error.details["refusal"] === "rank-not-divisible-by-groups";
          if (error.code === "not-expressible" && !isRank) throw error;
          return fc.pre(false); // another one instead
        }
        compared++;
        const { targets } = selectTargets(tree, config);
        expect(new Map(targets.map(({ name, r, alpha }) => [name, [r, alpha]]))).toEqual(
          expected(tree, groups),
        );
      }),
      { numRuns: 20 },
    );
    expect(compared).toBeGreaterThanOrEqual(20);
  });
});
