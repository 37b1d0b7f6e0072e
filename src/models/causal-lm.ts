import { type Dim, dimAdd, input, symbol, type Value } from "../graph/index.ts";
import type { KeyValue } from "../nn/index.ts";
import type { Tensor } from "../tensor/index.ts";
import { LanguageModel } from "./language-model.ts";

/** What a causal language model reads, as values of a graph. */
export type CausalInputs = {
  readonly inputIds: Value; // [batch, sequence], int64
  readonly attentionMask: Value; // [batch, past + sequence], float32, 1 for real tokens
  readonly positions: Value; // [batch, sequence], float32
  /** [batch, sequence], int64: which of a packed row's texts each token belongs to, instead of the attention mask; there is no past then. */
  readonly segments?: Value;
  /** Places of cached and new tokens in the sequence, [past + sequence], float32; by default each its own index. */
  readonly places?: Value;
  /** Cached keys and values, one pair per layer, or none. */
  readonly past: readonly KeyValue[];
  /** How many blocks of queries attention takes the sequence in, so that it computes fewer scores that nobody sees; by default one. There is no past then. */
  readonly attentionBlocks?: number;
};

/** Shape of the cache, for whoever feeds it. */
export type CacheLayout = { readonly layers: number; readonly kvHeads: number; readonly headDim: number };

/** A model that predicts the next token. */
export abstract class CausalLM extends LanguageModel {
  abstract readonly cacheLayout: CacheLayout;
  /** Whether a token's place is coded by the length of the whole run, so that what else is in a batch matters. */
  abstract readonly positionsDependOnBatch: boolean;

  /** Last hidden states [batch, sequence, hidden], and the keys and values of the tokens read, for the cache. */
  abstract hiddenStates(inputs: CausalInputs): { hidden: Value; present: KeyValue[] };

  /** Inputs besides those of `causalInputs`, for a run whose largest position is `sequenceLength - 1`. */
  abstract positionFeeds(sequenceLength: number): Record<string, Tensor>;
}

/**
 * Graph inputs of a causal model under their names: `input_ids`, `attention_mask`, `position_ids`, and with a cache
 * `places` and `past.<i>.key|value`.
 */
export function causalInputs(cache?: CacheLayout): CausalInputs {
  const [batch, sequence] = [symbol("batch"), symbol("sequence")];
  const past: Dim = cache ? symbol("past") : 0;
  return {
    inputIds: input("input_ids", "int64", [batch, sequence]),
    attentionMask: input("attention_mask", "float32", [batch, dimAdd(past, sequence)]),
    positions: input("position_ids", "float32", [batch, sequence]),
    ...(cache && { places: input("places", "float32", [dimAdd(past, sequence)]) }),
    past: Array.from({ length: cache?.layers ?? 0 }, (_, i) => {
      const shape = [batch, cache!.kvHeads, past, cache!.headDim];
      return {
        key: input(`past.${i}.key`, "float32", shape),
        value: input(`past.${i}.value`, "float32", shape),
      };
    }),
  };
}

/** The same for packed rows: `input_ids`, `segment_ids` in place of `attention_mask`, `position_ids`. */
export function packedInputs(): CausalInputs {
  const inputs = causalInputs();
  return { ...inputs, segments: input("segment_ids", "int64", inputs.inputIds.shape) };
}
