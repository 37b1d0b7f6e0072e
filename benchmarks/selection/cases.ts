import { makeMoeTree } from "../../test/selection/peft/moe-tree.ts";

/** 44 layers of 256 experts: 45,457 modules, as DeepSeek-V3's kind has. */
export const largeTree = () => makeMoeTree(44, 256);
/** For --quick. */
export const smallTree = () => makeMoeTree(44, 4);

/** PEFT's own words, since Python gets them too. */
export type Case = { readonly title: string; readonly config: Readonly<Record<string, unknown>> };

export const cases: readonly Case[] = [
  { title: "list: q_proj, v_proj", config: { target_modules: ["q_proj", "v_proj"] } },
  { title: "all-linear", config: { target_modules: "all-linear" } },
  {
    title: "list + layers: experts' up_proj in 8 layers",
    config: {
      target_modules: ["up_proj", "down_proj"],
      layers_to_transform: [30, 31, 32, 33, 34, 35, 36, 37],
    },
  },
  {
    title: "regex: q and v of layers 40 to 43",
    config: { target_modules: String.raw`.*\.layers\.4[0-3]\..*\.(q_proj|v_proj)` },
  },
  {
    title: "rank_pattern: 3 keys, all attention",
    config: {
      target_modules: ["q_proj", "k_proj", "v_proj", "o_proj"],
      rank_pattern: {
        [String.raw`layers\.[0-9]\..*q_proj`]: 4,
        k_proj: 2,
        [String.raw`model\.layers\.4\d\..*`]: 16,
      },
    },
  },
];
