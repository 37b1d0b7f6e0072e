import { type Dim, dimAdd, dimValue, input, op, symbol, type Value } from "../graph/index.ts";
import {
  type CausalLM,
  causalInputs,
  type DecoderKeyValues,
  type ImageSize,
  type ImageTextToTextLM,
  imageInputs,
  type Seq2SeqLM,
  seq2seqInputs,
} from "../models/index.ts";
import type { KeyValue } from "../nn/index.ts";

/** What a cache holds, and the names of its ports: what one run leaves is fed to the next. */
export type CacheLayout = {
  /** Beginnings of the ports' names, one for each pair of keys and values. */
  readonly names: readonly string[];
  readonly heads: number;
  readonly headDim: number;
};

const PARTS = ["key", "value"] as const;

/** Ports of a cache, as they are fed and as they come out. */
export const cachePorts = ({ names }: CacheLayout): { past: string; present: string }[] =>
  names.flatMap((name) =>
    PARTS.map((part) => ({ past: `past.${name}.${part}`, present: `present.${name}.${part}` })),
  );

const layerNames = (layers: number, prefix = ""): string[] =>
  Array.from({ length: layers }, (_, layer) => `${prefix}${layer}`);

/** A causal model's cache. */
export function causalCache({ cacheLayout: { layers, kvHeads, headDim } }: CausalLM): CacheLayout {
  return { names: layerNames(layers), heads: kvHeads, headDim };
}

/** An encoder–decoder's caches: of the tokens written so far, and of the encoder's output. */
export function seq2seqCaches(model: Seq2SeqLM): { self: CacheLayout; cross: CacheLayout } {
  const { layers, heads, headDim } = model.decoderCacheLayout;
  return {
    self: { names: layerNames(layers, "self."), heads, headDim },
    cross: { names: layerNames(layers, "cross."), heads, headDim },
  };
}

/** Inputs `past.<name>.key|value`, [rows, heads, tokens, features]. */
function pastInputs({ names, heads, headDim }: CacheLayout, rows: Dim, tokens: Dim): KeyValue[] {
  const part = (name: string): Value => input(`past.${name}`, "float32", [rows, heads, tokens, headDim]);
  return names.map((name) => ({ key: part(`${name}.key`), value: part(`${name}.value`) }));
}

const presentOutputs = ({ names }: CacheLayout, present: readonly KeyValue[]): Record<string, Value> =>
  Object.fromEntries(
    present.flatMap(({ key, value }, i) => [
      [`present.${names[i]}.key`, key],
      [`present.${names[i]}.value`, value],
    ]),
  );

/** Scores of the token after the last, [batch, vocabulary]. */
function lastLogits(model: CausalLM | Seq2SeqLM, hidden: Value): Value {
  const [batch, sequence, width] = hidden.shape as [Dim, Dim, Dim];
  const last = op.gather(hidden, op.sub(dimValue(sequence), 1), 1); // [batch, hidden]
  return model.logits(op.reshape(last, [batch, width]));
}

/** What a program says of scores [batch, vocabulary], so that they need not be copied out where nothing else is asked. */
export const CHOICE = ["best", "sum"] as const;

/**
 * `logits` [batch, vocabulary], and of each row the first of its largest scores as `best` [batch] and the `sum` [batch] of all,
 * which is finite where the scores are.
 */
export function scored(logits: Value): Record<"logits" | (typeof CHOICE)[number], Value> {
  const [batch, vocabulary] = logits.shape as [Dim, number];
  const isLargest = op.greaterOrEqual(logits, op.reduceMax(logits));
  const fromEnd = op.where(isLargest, op.sub(vocabulary, op.range(0, vocabulary)), 0);
  return {
    logits,
    best: op.reshape(op.sub(vocabulary, op.reduceMax(fromEnd)), [batch]),
    sum: op.reshape(op.reduceSum(logits), [batch]),
  };
}

/**
 * Scores of the next token, `logits` [batch, vocabulary] with `best` and `sum`, and the keys and values of the tokens read. The prompt is
 * processed in one run with an empty past; every further run reads one token. A past with room for more has zeros in the
 * attention mask there; `places` says where the other tokens are.
 */
export function nextTokenProgram(model: CausalLM): Record<string, Value> {
  const { hidden, present } = model.hiddenStates(causalInputs(model.cacheLayout));
  return { ...scored(lastLogits(model, hidden)), ...presentOutputs(causalCache(model), present) };
}

/** Features of pictures of one size, `features` [images, tokens, hidden]. */
export function visionProgram(model: ImageTextToTextLM, size: ImageSize): Record<string, Value> {
  return { features: model.imageFeatures(imageInputs(model, size).pixelValues) };
}

/**
 * Keys and values that the decoder's layers make of the encoder's output, under the names of the cross cache.
 * @param features whether pictures are among the tokens: their features are fed as `features` [images, tokens, hidden].
 */
export function encoderProgram(
  model: Seq2SeqLM,
  { features }: { features?: ImageTextToTextLM } = {},
): Record<string, Value> {
  const inputs = seq2seqInputs();
  const encoderHidden = model.encode(
    features
      ? { inputsEmbeds: embedded(features, inputs.inputIds), attentionMask: inputs.attentionMask }
      : inputs,
  );
  // Of the decoder only what depends on the encoder alone is asked for, so only that is in the graph.
  const { present } = model.decode({ ...inputs, encoderHidden });
  return presentOutputs(
    seq2seqCaches(model).cross,
    present.map(({ cross }) => cross),
  );
}

/** Numbers of a picture's feature: those of a decoder's token. */
export const featureWidth = ({ decoderCacheLayout: { heads, headDim } }: ImageTextToTextLM): number =>
  heads * headDim;

function embedded(model: ImageTextToTextLM, inputIds: Value): Value {
  const rows = input("image_rows", "int64", inputIds.shape);
  const shape = [symbol("images"), symbol("image_tokens"), featureWidth(model)];
  const features = input("features", "float32", shape);
  return model.embed(inputIds, { features, rows });
}

/**
 * As `nextTokenProgram`, of a decoder whose keys and values of the encoder's output are fed; they are not given back, for
 * they stay.
 */
export function decoderProgram(model: Seq2SeqLM): Record<string, Value> {
  const [batch, source, past] = [symbol("batch"), symbol("source"), symbol("past")];
  const target = symbol("target");
  const layouts = seq2seqCaches(model);
  const self = pastInputs(layouts.self, batch, past);
  const cross = pastInputs(layouts.cross, batch, source);
  const { hidden, present } = model.decode({
    decoderInputIds: input("decoder_input_ids", "int64", [batch, target]),
    decoderAttentionMask: input("decoder_attention_mask", "float32", [batch, dimAdd(past, target)]),
    attentionMask: input("attention_mask", "float32", [batch, source]),
    places: input("places", "int64", [target]),
    past: self.map((pair, layer): DecoderKeyValues => ({ self: pair, cross: cross[layer]! })),
  });
  return {
    ...scored(lastLogits(model, hidden)),
    ...presentOutputs(
      layouts.self,
      present.map((pair) => pair.self),
    ),
  };
}

/** A cache with room for `more` tokens at the end. It holds no weights. */
export function growProgram(layout: CacheLayout, more: number): Record<string, Value> {
  const past = pastInputs(layout, symbol("batch"), symbol("past"));
  const grown = (value: Value): Value => op.pad(value, 2, 0, more);
  return presentOutputs(
    layout,
    past.map(({ key, value }) => ({ key: grown(key), value: grown(value) })),
  );
}

/** A cache with other rows: row i of what comes out is row `rows`[i] of what is fed. It holds no weights. */
export function gatherProgram(layout: CacheLayout): Record<string, Value> {
  const rows = input("rows", "int64", [symbol("rows")]);
  const past = pastInputs(layout, symbol("batch"), symbol("past"));
  return presentOutputs(
    layout,
    past.map(({ key, value }) => ({ key: op.gather(key, rows), value: op.gather(value, rows) })),
  );
}
