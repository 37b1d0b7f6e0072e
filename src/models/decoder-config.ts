import { z } from "zod";
import { UnsupportedModelError } from "../errors.ts";
import { count, parseConfig, tokenIds } from "./model-config.ts";
import { type RopeSettings, readRope } from "./rope.ts";

/** A decoder-only transformer's shape, whatever its config.json calls it. */
export type DecoderSettings = {
  readonly modelType: string;
  /** Prefix of the reference's class names: "Llama" in "LlamaAttention". */
  readonly classPrefix: string;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  /** The row of the input embedding that is never trained. */
  readonly padTokenId: number | null;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly activation: string;
  readonly normEpsilon: number;
  readonly tiedEmbeddings: boolean;
  readonly qkvBias: boolean;
  readonly outputBias: boolean;
  readonly mlpBias: boolean;
  readonly qkNorm: boolean;
  /** Sliding window of each layer; undefined where it sees everything before it. */
  readonly windows: readonly (number | undefined)[];
  readonly rope: RopeSettings;
};

/** Fields shared by the config.json of every decoder; each type adds its own. */
export const decoderFields = {
  model_type: z.string(),
  vocab_size: count,
  hidden_size: count,
  intermediate_size: count,
  num_hidden_layers: count,
  num_attention_heads: count,
  num_key_value_heads: count.nullish(),
  head_dim: count.nullish(),
  hidden_act: z.string().default("silu"),
  max_position_embeddings: count,
  rms_norm_eps: z.number().positive().default(1e-6),
  tie_word_embeddings: z.boolean().default(false),
  attention_dropout: z.number().nullish(),
  pad_token_id: z.number().int().nullish(),
  bos_token_id: tokenIds,
  eos_token_id: tokenIds,
};

/** Fields that change the computation, with the only value that is implemented. */
const fixed: Readonly<Record<string, unknown>> = {
  rope_interleaved: false,
  quantization_config: undefined,
  attention_dropout: 0,
  is_encoder_decoder: false,
  add_cross_attention: false,
};

/** Reads a decoder's config.json with its type's schema and defaults. */
export const parseDecoderConfig = <S extends z.ZodRawShape>(
  raw: Readonly<Record<string, unknown>>,
  schema: z.ZodObject<S>,
  { file, defaults }: { file: string; defaults: Readonly<Record<string, unknown>> },
): { config: z.infer<z.ZodObject<S>>; warnings: string[] } =>
  parseConfig(raw, schema, { file, defaults, fixed, activation: "hidden_act" });

type CommonConfig = z.infer<z.ZodObject<typeof decoderFields>>;

/** The settings that all decoders read alike. @throws UnsupportedModelError if the sizes do not fit each other. */
export function commonSettings(config: CommonConfig, raw: Readonly<Record<string, unknown>>, file: string) {
  const heads = config.num_attention_heads;
  const kvHeads = config.num_key_value_heads ?? heads;
  const headDim = config.head_dim ?? config.hidden_size / heads;
  if (!Number.isInteger(headDim) || headDim % 2 !== 0 || heads % kvHeads !== 0)
    throw new UnsupportedModelError(
      `${file}: hidden_size ${config.hidden_size}, num_attention_heads ${heads}, num_key_value_heads ${kvHeads} and head_dim ${headDim} do not fit: heads must be a multiple of key-value heads, and the head size a whole even number.`,
      { code: "unsupported-config", details: { file } },
    );
  return {
    modelType: config.model_type,
    vocabSize: config.vocab_size,
    hiddenSize: config.hidden_size,
    padTokenId: config.pad_token_id ?? null,
    intermediateSize: config.intermediate_size,
    layers: config.num_hidden_layers,
    heads,
    kvHeads,
    headDim,
    activation: config.hidden_act,
    normEpsilon: config.rms_norm_eps,
    tiedEmbeddings: config.tie_word_embeddings,
    rope: readRope(raw, { headDim, maxPositionEmbeddings: config.max_position_embeddings }),
  };
}

/** Fields of the configurations that choose a window layer by layer; read with `windowsOf`. */
export const windowFields = {
  use_sliding_window: z.boolean().default(false),
  sliding_window: count.nullish(),
  max_window_layers: z.number().int().nonnegative().default(28),
  layer_types: z.array(z.enum(["full_attention", "sliding_attention"])).nullish(),
};

/** Windows from `layer_types`, or from `max_window_layers`, as the Qwen configurations derive them. */
export function windowsOf(
  config: z.infer<z.ZodObject<typeof windowFields>> & Pick<CommonConfig, "num_hidden_layers">,
  file: string,
): (number | undefined)[] {
  const window = config.use_sliding_window ? (config.sliding_window ?? undefined) : undefined;
  const { layer_types: types } = config;
  if (types && types.length !== config.num_hidden_layers)
    throw new UnsupportedModelError(
      `${file}: layer_types has ${types.length} entries for ${config.num_hidden_layers} layers.`,
      {
        code: "unsupported-config",
        details: { file },
      },
    );
  return Array.from({ length: config.num_hidden_layers }, (_, i) => {
    const slides = types
      ? types[i] === "sliding_attention"
      : window !== undefined && i >= config.max_window_layers;
    if (slides && window === undefined)
      throw new UnsupportedModelError(
        `${file}: layer ${i} is a sliding_attention layer, but there is no sliding_window.`,
        {
          code: "unsupported-config",
          details: { file },
        },
      );
    return slides ? window : undefined;
  });
}
