import type { Checkpoint } from "../checkpoint/index.ts";
import type { Value } from "../graph/index.ts";
import { PreTrainedModel } from "../nn/index.ts";

/** How the model sits among its files, for messages, saved adapters and loading tokenizers. */
export type ModelOrigin = {
  /** As the user spelled it; becomes `base_model_name_or_path`. */
  readonly name: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly generationConfig: Readonly<Record<string, unknown>> | undefined;
  readonly checkpoint: Checkpoint;
  /** What was noticed while loading and is not fatal. */
  readonly warnings: readonly string[];
};

/** A model that scores tokens of a vocabulary. */
export abstract class LanguageModel extends PreTrainedModel {
  abstract readonly vocabSize: number;
  /** Longest sequence. */
  abstract readonly maxPositions: number;
  abstract override readonly inputEmbeddingPath: string;
  abstract override readonly outputEmbeddingPath: string;
  /** Set by loading. */
  origin!: ModelOrigin;

  /** Tokens that end a text, by config.json. */
  get eosTokenIds(): number[] {
    const ids = [this.origin.config["eos_token_id"]].flat();
    return ids.filter((id): id is number => typeof id === "number");
  }

  /** A token to pad with; any will do, since padding is masked. The first that the model's files name, else 0. */
  get padTokenId(): number {
    const { config, generationConfig } = this.origin;
    const named = [config["pad_token_id"], generationConfig?.["pad_token_id"], ...this.eosTokenIds];
    return named.find((id): id is number => this.hasToken(id)) ?? 0;
  }

  /** Whether the vocabulary has this token. */
  hasToken(id: unknown): boolean {
    return Number.isInteger(id) && (id as number) >= 0 && (id as number) < this.vocabSize;
  }

  override get nameOrPath(): string {
    return this.origin.name;
  }

  override get configFields(): Readonly<Record<string, unknown>> {
    return this.origin.config;
  }

  /** Scores of the next token. Shapes: hidden [..., hidden], result [..., vocabulary]. */
  abstract logits(hidden: Value): Value;
}
