import { z } from "zod";
import { UnsupportedModelError } from "../errors.ts";
import { type BartSettings, readBartConfig } from "./bart-config.ts";
import { olderVisionFields } from "./florence2-layout.ts";
import { count, parseConfig, tokenIds } from "./model-config.ts";

/** One stage of the vision tower: a convolution that shrinks the picture, and blocks on what is left of it. */
export type StageSettings = {
  readonly depth: number;
  readonly channels: number;
  readonly heads: number;
  readonly groups: number;
  readonly patchSize: number;
  readonly patchStride: number;
  readonly patchPadding: number;
  /** Whether the patch embedding's norm comes before its convolution. */
  readonly prenorm: boolean;
  /** Probabilities of leaving out a residual branch in training, for each block's spatial and its channel half. */
  readonly dropPath: readonly (readonly [spatial: number, channel: number])[];
};

/** Shape of the vision tower and the projector. */
export type VisionSettings = {
  readonly inChannels: number;
  readonly stages: readonly StageSettings[];
  /** Height and width of an attention window. */
  readonly windowSize: number;
  readonly mlpRatio: number;
  readonly qkvBias: boolean;
  readonly activation: string;
  readonly projectionDim: number;
  readonly maxPositions: number;
  readonly maxTemporal: number;
};

export type Florence2Settings = {
  readonly text: BartSettings;
  readonly vision: VisionSettings;
  readonly imageTokenId: number;
  /** Whether the head is the embedding; whether encoder and decoder share theirs is the text model's own setting. */
  readonly tiedHead: boolean;
  readonly eosTokenIds: readonly number[];
};

const sizes = z.array(count).min(1);
const visionSchema = z.object({
  model_type: z.string(),
  in_channels: count,
  depths: z.array(z.number().int().nonnegative()).min(1),
  patch_size: sizes,
  patch_stride: sizes,
  patch_padding: z.array(z.number().int().nonnegative()).min(1),
  patch_prenorm: z.array(z.boolean()).min(1),
  embed_dim: sizes,
  num_heads: sizes,
  num_groups: sizes,
  window_size: count,
  drop_path_rate: z.number().min(0).lt(1),
  mlp_ratio: z.number().positive(),
  qkv_bias: z.boolean(),
  activation_function: z.string(),
  projection_dim: count,
  max_temporal_embeddings: count,
  max_position_embeddings: count,
});

/** As transformers' Florence2VisionConfig has them. */
const visionDefaults = {
  model_type: "florence_vision",
  in_channels: 3,
  depths: [1, 1, 9, 1],
  patch_size: [7, 3, 3, 3],
  patch_stride: [4, 2, 2, 2],
  patch_padding: [3, 1, 1, 1],
  patch_prenorm: [false, true, true, true],
  embed_dim: [128, 256, 512, 1024],
  num_heads: [4, 8, 16, 32],
  num_groups: [4, 8, 16, 32],
  window_size: 12,
  drop_path_rate: 0.1,
  mlp_ratio: 4,
  qkv_bias: true,
  activation_function: "gelu",
  projection_dim: 1024,
  max_temporal_embeddings: 100,
  max_position_embeddings: 50,
};

const schema = z.object({
  model_type: z.string(),
  text_config: z.record(z.string(), z.unknown()).nullish(),
  vision_config: z.record(z.string(), z.unknown()).nullish(),
  image_token_id: z.number().int().nonnegative(),
  tie_word_embeddings: z.boolean(),
  bos_token_id: tokenIds,
  eos_token_id: tokenIds,
  pad_token_id: tokenIds,
});

type Json = Readonly<Record<string, unknown>>;

/** transformers' BartConfig ends a text with it by default. */
const BART_EOS = 2;

/**
 * Reads the configuration of a Florence-2 as transformers has it; for the older layout see `nativeFlorence2Config`.
 * @throws UnsupportedModelError for a setting that is not implemented, or sizes that do not fit each other.
 */
export function readFlorence2Config(
  raw: Json,
  file: string,
): { settings: Florence2Settings; warnings: string[] } {
  const { config, warnings } = parseConfig(raw, schema, {
    file,
    defaults: { image_token_id: 51289, tie_word_embeddings: true },
    fixed: { quantization_config: undefined },
    activation: "activation_function",
  });
  const language = { model_type: "bart", ...config.text_config };
  if (language.model_type !== "bart")
    throw unsupported(file, [
      `text_config.model_type "${language.model_type}" is not implemented (only "bart" is)`,
    ]);
  const text = readBartConfig(language, `${file}, text_config`);
  const vision = readVisionConfig(config.vision_config ?? {}, `${file}, vision_config`);
  if (vision.settings.projectionDim !== text.settings.hiddenSize)
    throw unsupported(file, [
      `vision_config.projection_dim ${vision.settings.projectionDim} must be text_config.d_model, ${text.settings.hiddenSize}`,
    ]);
  const eos = config.eos_token_id ?? (language as Json)["eos_token_id"] ?? BART_EOS;
  return {
    settings: {
      text: text.settings,
      vision: vision.settings,
      imageTokenId: config.image_token_id,
      tiedHead: config.tie_word_embeddings,
      eosTokenIds: [eos].flat().filter((id): id is number => typeof id === "number"),
    },
    warnings: [...warnings, ...text.warnings, ...vision.warnings],
  };
}

function readVisionConfig(raw: Json, file: string): { settings: VisionSettings; warnings: string[] } {
  const { config, warnings } = parseConfig({ ...visionDefaults, ...raw }, visionSchema, {
    file,
    defaults: visionDefaults,
    fixed: {},
    activation: "activation_function",
    harmless: [...olderVisionFields, "max_pos_embeddings"], // left by transformers' conversion script
  });
  const stages = config.embed_dim.length;
  const problems: string[] = [];
  for (const name of ["num_heads", "num_groups"] as const)
    if (config[name].length !== stages)
      problems.push(`${name} has ${config[name].length} entries for ${stages} stages (embed_dim)`);
  for (const name of ["depths", "patch_size", "patch_stride", "patch_padding", "patch_prenorm"] as const)
    if (config[name].length < stages)
      problems.push(`${name} has ${config[name].length} entries for ${stages} stages (embed_dim)`);
  for (const name of ["num_heads", "num_groups"] as const)
    for (const [i, parts] of config[name].entries())
      if (i < stages && config.embed_dim[i]! % parts !== 0)
        problems.push(`embed_dim ${config.embed_dim[i]} must be a multiple of ${name} ${parts}`);
  if (config.embed_dim.at(-1)! % 2 !== 0)
    problems.push(`embed_dim must end with an even number, got ${config.embed_dim.at(-1)}`);
  if (problems.length > 0) throw unsupported(file, problems);

  const rates = dropPathRates(config.drop_path_rate, config.depths);
  return {
    settings: {
      inChannels: config.in_channels,
      stages: config.embed_dim.map((channels, i) => ({
        depth: config.depths[i]!,
        channels,
        heads: config.num_heads[i]!,
        groups: config.num_groups[i]!,
        patchSize: config.patch_size[i]!,
        patchStride: config.patch_stride[i]!,
        patchPadding: config.patch_padding[i]!,
        prenorm: config.patch_prenorm[i]!,
        dropPath: rates[i]!,
      })),
      windowSize: config.window_size,
      mlpRatio: config.mlp_ratio,
      qkvBias: config.qkv_bias,
      activation: config.activation_function,
      projectionDim: config.projection_dim,
      maxPositions: config.max_position_embeddings,
      maxTemporal: config.max_temporal_embeddings,
    },
    warnings,
  };
}

/** Rates that grow evenly from 0 to `last` over the halves of all blocks. Source: transformers Florence2VisionBackbone. */
function dropPathRates(last: number, depths: readonly number[]): [spatial: number, channel: number][][] {
  const halves = depths.reduce((sum, depth) => sum + depth, 0) * 2;
  const rate = (half: number): number => (half === 0 ? 0 : (last * half) / (halves - 1));
  let next = 0;
  return depths.map((depth) =>
    Array.from({ length: depth }, (): [number, number] => [rate(next++), rate(next++)]),
  );
}

function unsupported(file: string, problems: readonly string[]): UnsupportedModelError {
  return new UnsupportedModelError(`${file}: ${problems.join("; ")}.`, {
    code: "unsupported-config",
    details: { file, problems },
  });
}
