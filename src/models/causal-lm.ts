import type { Checkpoint } from "../checkpoint/index.ts";
import { type Dim, dimAdd, input, symbol, type Value } from "../graph/index.ts";
import { PreTrainedModel } from "../nn/index.ts";
import type { Tensor } from "../tensor/index.ts";

/** Keys and values of one layer, each [batch, kvHeads, tokens, size]. */
export type KeyValue = { readonly key: Value; readonly value: Value };

/** What a causal language model reads, as values of a graph. */
export type CausalInputs = {
  readonly inputIds: Value; // [batch, sequence], int64
  readonly attentionMask: Value; // [batch, past + sequence], float32, 1 for real tokens
  readonly positions: Value; // [batch, sequence], float32
  /** Cached keys and values, one pair per layer, or none. */
  readonly past: readonly KeyValue[];
};

/** Shape of the cache, for whoever feeds it. */
export type CacheLayout = { readonly layers: number; readonly kvHeads: number; readonly headDim: number };

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

/** A model that predicts the next token. */
export abstract class CausalLM extends PreTrainedModel {
  abstract readonly vocabSize: number;
  abstract readonly maxPositions: number;
  abstract readonly cacheLayout: CacheLayout;
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

  /** Last hidden states [batch, sequence, hidden], and the keys and values of all tokens for the cache. */
  abstract hiddenStates(inputs: CausalInputs): { hidden: Value; present: KeyValue[] };

  /** Scores of the next token. Shapes: hidden [..., hidden], result [..., vocabulary]. */
  abstract logits(hidden: Value): Value;

  /** Inputs besides those of `causalInputs`, for a run whose largest position is `sequenceLength - 1`. */
  abstract positionFeeds(sequenceLength: number): Record<string, Tensor>;
}

/** Graph inputs of a causal model under their names: `input_ids`, `attention_mask`, `position_ids`, `past.<i>.key|value`. */
export function causalInputs(cache?: CacheLayout): CausalInputs {
  const [batch, sequence] = [symbol("batch"), symbol("sequence")];
  const past: Dim = cache ? symbol("past") : 0;
  return {
    inputIds: input("input_ids", "int64", [batch, sequence]),
    attentionMask: input("attention_mask", "float32", [batch, dimAdd(past, sequence)]),
    positions: input("position_ids", "float32", [batch, sequence]),
    past: Array.from({ length: cache?.layers ?? 0 }, (_, i) => {
      const shape = [batch, cache!.kvHeads, past, cache!.headDim];
      return {
        key: input(`past.${i}.key`, "float32", shape),
        value: input(`past.${i}.value`, "float32", shape),
      };
    }),
  };
}
