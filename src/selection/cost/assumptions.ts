import type { Pass } from "./passes.ts";
import type { Setting } from "./setting.ts";

/** Experts per token that models of a type have by default. */
const usualExperts: Readonly<Record<string, number>> = {
  ...{ mixtral: 2, olmoe: 8, qwen2_moe: 4, qwen3_moe: 8, gpt_oss: 4, deepseek_v2: 6, deepseek_v3: 8 },
  ...{ minimax: 2, phimoe: 2, granitemoe: 8, flex_olmo: 5 },
};

/** Collects what an estimate takes for granted, in sentences. */
export class Assumptions {
  readonly #sentences = new Set<string>();

  get list(): string[] {
    return [...this.#sentences];
  }

  add(sentence: string): void {
    this.#sentences.add(sentence);
  }

  /** Number of heads of attention of this width, where config.json is not there to tell. */
  heads(width: number): number {
    const size = width >= 2048 ? 128 : 64;
    const heads = Math.max(1, Math.round(width / size));
    this.add(`Attention of width ${width} has ${heads} heads of ${width / heads}: config.json does not say.`);
    return heads;
  }

  /** Heads, or groups, of a stage of DaViT, where config.json is not there to tell. */
  davitParts(channels: number, size: number): number {
    this.add(`DaViT's heads and groups have ${size} channels each: config.json does not say.`);
    return Math.max(1, Math.round(channels / size));
  }

  /** Experts that a token goes through; models without any have one. */
  expertsPerToken({ tree, layout }: Setting): number {
    const experts = layout.units.reduce((most, unit) => Math.max(most, unit.experts), 1);
    if (experts === 1) return 1;
    const told = (tree.config.textConfig ?? tree.config).numExpertsPerToken ?? tree.config.numExpertsPerToken;
    if (told !== undefined) return Math.min(told, experts);
    const usual = Math.min(usualExperts[tree.modelType] ?? (experts >= 32 ? 8 : 2), experts);
    this.add(`${usual} of ${experts} experts per token: config.json does not say.`);
    return usual;
  }

  /** What holds for the whole estimate. */
  describe({ tree, layout, selection, bytesPerWeight }: Setting, known: readonly Pass[]): void {
    this.add("Products only: elementwise work is not counted.");
    this.add("Attention is full: a causal mask or a sliding window saves nothing.");
    if (tree.config.dtype === undefined && bytesPerWeight === undefined)
      this.add("Frozen weights are stored in 4 bytes each: config.json does not say.");
    for (const { path } of layout.towers)
      if (!known.some(({ tower }) => tower.path === path))
        this.add(
          `${path || "The model"} is not counted: how many positions it has is not known. Give imageTokens, or imageSize for convolutions.`,
        );
    if (selection.targetParameters.length > 0)
      this.add(
        "Adapters of stacked experts are applied to activations; PEFT adds their product to the weight.",
      );
  }
}
