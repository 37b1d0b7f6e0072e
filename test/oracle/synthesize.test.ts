/** Real PEFT on synthesized configurations: the same modules, ranks and alphas as were wanted. */
import { describe, expect, test } from "vitest";
import type { ModuleTree } from "../../src/selection/index.ts";
import { synthesize } from "../../src/selection/synthesize/index.ts";
import { adaptableNames, skeleton } from "../selection/synthesize/support.ts";
import { selectOnSkeleton } from "./select-on-skeleton.ts";

type Wanted = ReadonlyMap<string, { r: number; alpha: number }>;

/** Modules whose names match; those of `more` have another rank and alpha. */
function wanted(tree: ModuleTree, names: RegExp, more?: RegExp): Wanted {
  return new Map(
    adaptableNames(tree)
      .filter((name) => names.test(name))
      .map((name) => [name, more?.test(name) ? { r: 16, alpha: 4 } : { r: 8, alpha: 32 }]),
  );
}

/** A third of the modules, by chance, but the same in every run; each with one of three ranks. */
function scattered(tree: ModuleTree, seed: number): Wanted {
  let state = seed;
  const next = (n: number): number => {
    state = (state * 1103515245 + 12345) % 2 ** 31;
    return Math.floor((state / 2 ** 31) * n);
  };
  const names = adaptableNames(tree).filter((name) => !/vision_tower.*conv/.test(name));
  return new Map(
    names
      .filter(() => next(3) === 0)
      .map((name) => [name, { r: [8, 8, 16, 4][next(4)]!, alpha: [32, 16][next(2)]! }]),
  );
}

const cases: Readonly<Record<string, (tree: ModuleTree) => Wanted[]>> = {
  "florence2-base": (tree) => [
    wanted(tree, /language_model\.(?:decoder\.|encoder\.layers\.[45]\.).*[qv]_proj$/),
    wanted(tree, /language_model\.(?:decoder\.|encoder\.layers\.[45]\.).*[qv]_proj$/, /encoder\.layers/),
    wanted(tree, /vision_tower\.blocks\.2\.[1-8]\..*(?:fc1|qkv)$/, /channel_block/),
    wanted(tree, /vision_tower.*(?:qkv|fc\d|proj)$|lm_head/, /blocks\.[02]/),
    scattered(tree, 1),
  ],
  "llama-3.2-1b": (tree) => [
    wanted(tree, /[qv]_proj$/, /layers\.\d*[13579]\./),
    wanted(tree, /layers\.1[2-5]\..*_proj$/, /mlp/),
    wanted(tree, /layers\.\d*[02468]\..*q_proj$|layers\.1\d\..*down_proj$|lm_head/),
    wanted(tree, /_proj$/, /layers\.[0-3]\./),
    scattered(tree, 2),
  ],
  "t5-small": (tree) => [
    wanted(tree, /encoder.*\.[qv]$|EncDecAttention/, /decoder/),
    wanted(tree, /block\.[345]\..*SelfAttention\.[qv]$/),
    wanted(tree, /decoder\.block\.[13]\.layer\.2\./, /wi$/),
    scattered(tree, 3),
  ],
  "mixtral-8x7b": (tree) => [
    wanted(tree, /layers\.(?:[13]|2\d)\..*q_proj$/, /layers\.2/),
    wanted(tree, /layers\.\d*[13579]\..*(?:v|o)_proj$|layers\.3\d.*k_proj/),
    scattered(tree, 4),
  ],
  "resnet-50": (tree) => [
    wanted(tree, /stages\.[23]\.layers\.[0-2]\..*convolution$/, /shortcut/),
    scattered(tree, 5),
  ],
  "edge-siglip": (tree) => [wanted(tree, /vision_model.*(?:attention|fc1)$/, /head/), scattered(tree, 6)],
};

describe.each(Object.entries(cases))("%s", (name, make) => {
  test("PEFT selects what was wanted", () => {
    const tree = skeleton(name);
    const all = make(tree);
    const configs = all.map((own) => synthesize(tree, own).config);
    const answers = selectOnSkeleton(name, configs);
    expect(answers).toHaveLength(all.length);
    answers.forEach((answer, i) => {
      const expected = Object.fromEntries([...all[i]!].map(([own, { r, alpha }]) => [own, [r, alpha]]));
      expect(Object.keys(expected).length).toBeGreaterThan(1);
      expect(answer, JSON.stringify(configs[i])).toEqual({ targets: expected });
    });
  });
});
