import { z } from "zod";
import { UnsupportedModelError } from "../errors.ts";

const ropeTypes = ["default", "linear", "dynamic", "llama3", "yarn"] as const;
type RopeType = (typeof ropeTypes)[number];

/** What `rope_parameters` (transformers 5) or `rope_scaling` + `rope_theta` (transformers 4) hold, under one shape. */
export type RopeSettings = {
  readonly type: RopeType;
  readonly theta: number;
  readonly headDim: number;
  readonly maxPositionEmbeddings: number;
  readonly parameters: RopeParameters;
};

const optionalNumber = z.number().nullish();
const parametersSchema = z.object({
  rope_type: z.string().nullish(),
  type: z.string().nullish(),
  rope_theta: optionalNumber,
  factor: optionalNumber,
  original_max_position_embeddings: optionalNumber,
  attention_factor: optionalNumber,
  beta_fast: optionalNumber,
  beta_slow: optionalNumber,
  mscale: optionalNumber,
  mscale_all_dim: optionalNumber,
  truncate: z.boolean().nullish(),
  low_freq_factor: optionalNumber,
  high_freq_factor: optionalNumber,
  partial_rotary_factor: optionalNumber,
});
type RopeParameters = z.infer<typeof parametersSchema>;

const known = new Set(Object.keys(parametersSchema.shape));
const required: { readonly [T in RopeType]: readonly (keyof RopeParameters)[] } = {
  default: [],
  linear: ["factor"],
  dynamic: ["factor"],
  llama3: ["factor", "low_freq_factor", "high_freq_factor"],
  yarn: [],
};

const fail = (message: string, details: Record<string, unknown> = {}): never => {
  throw new UnsupportedModelError(message, { code: "unsupported-rope", details });
};

/**
 * Reads the position settings of a config.json, old layout or new.
 * @throws UnsupportedModelError for a scaling type or field that is not implemented, or one that is missing.
 * Source: transformers modeling_rope_utils.py, RotaryEmbeddingConfigMixin.
 */
export function readRope(
  config: Readonly<Record<string, unknown>>,
  { headDim, maxPositionEmbeddings }: { headDim: number; maxPositionEmbeddings: number },
): RopeSettings {
  const raw = config["rope_scaling"] ?? config["rope_parameters"] ?? {};
  const parsed = parametersSchema.safeParse(raw);
  if (!parsed.success)
    return fail(`config.json: rope_parameters are not valid: ${z.prettifyError(parsed.error)}`);
  const parameters = { ...parsed.data };
  const unknown = Object.keys(raw as object).filter((key) => !known.has(key));
  if (unknown.length > 0)
    return fail(
      `config.json: rope_parameters hold fields that Graft does not implement: ${unknown.join(", ")}.`,
      { unknown },
    );
  const type = (parameters.rope_type ?? parameters.type ?? "default") as RopeType;
  if (!ropeTypes.includes(type))
    return fail(
      `config.json: RoPE scaling "${type}" is not implemented. Implemented: ${ropeTypes.join(", ")}.`,
      { type },
    );
  const missing = required[type].filter((key) => parameters[key] == null);
  if (missing.length > 0)
    return fail(`config.json: RoPE scaling "${type}" needs ${missing.join(", ")} in rope_parameters.`, {
      missing,
    });
  const partial = parameters.partial_rotary_factor ?? config["partial_rotary_factor"] ?? 1;
  if (partial !== 1)
    return fail(`config.json: partial_rotary_factor ${partial} is not implemented; only 1 is.`);
  const theta = parameters.rope_theta ?? (config["rope_theta"] as number | undefined) ?? 10000;
  if (typeof theta !== "number" || !(theta > 0))
    return fail(`config.json: rope_theta must be a positive number, got ${theta}.`);
  if (type === "llama3" || type === "yarn") {
    const outer = config["original_max_position_embeddings"];
    parameters.original_max_position_embeddings =
      typeof outer === "number"
        ? outer
        : (parameters.original_max_position_embeddings ?? maxPositionEmbeddings);
  }
  return { type, theta, headDim, maxPositionEmbeddings, parameters };
}

/**
 * Angle per position of every pair of a head, [headDim / 2], rounded to float32.
 * `sequenceLength` matters to dynamic scaling only: base = θ (f·n/N - (f - 1))^(d / (d - 2)) for n = max(length, N).
 * Source: transformers modeling_rope_utils.py, `_compute_*_parameters`.
 */
export function inverseFrequencies(
  rope: RopeSettings,
  sequenceLength = rope.maxPositionEmbeddings,
): Float32Array {
  const { type, theta, headDim, maxPositionEmbeddings, parameters } = rope;
  const factor = parameters.factor ?? 1;
  const powers = (base: number): Float32Array =>
    Float32Array.from(
      { length: headDim / 2 },
      (_, i) => 1 / Math.fround(base ** Math.fround((2 * i) / headDim)),
    );
  switch (type) {
    case "default":
      return powers(theta);
    case "linear":
      return powers(theta).map((frequency) => frequency / factor);
    case "dynamic": {
      const length = Math.max(sequenceLength, maxPositionEmbeddings);
      const growth = (factor * length) / maxPositionEmbeddings - (factor - 1);
      return powers(theta * growth ** (headDim / (headDim - 2)));
    }
    case "llama3":
      return llama3Frequencies(powers(theta), parameters);
    case "yarn":
      return yarnFrequencies(rope);
  }
}

/** Long wavelengths are slowed by `factor`, short ones are kept, those between are blended. Source: Llama 3.1. */
function llama3Frequencies(frequencies: Float32Array, parameters: RopeParameters): Float32Array {
  const factor = parameters.factor!;
  const low = parameters.low_freq_factor!;
  const high = parameters.high_freq_factor!;
  const context = parameters.original_max_position_embeddings!;
  return frequencies.map((frequency) => {
    const wavelength = (2 * Math.PI) / frequency;
    if (wavelength < context / high) return frequency;
    if (wavelength > context / low) return frequency / factor;
    const smooth = (context / wavelength - low) / (high - low);
    return ((1 - smooth) * frequency) / factor + smooth * frequency;
  });
}

const yarnFactor = ({ parameters, maxPositionEmbeddings }: RopeSettings): number =>
  parameters.factor ?? maxPositionEmbeddings / parameters.original_max_position_embeddings!;

/** Source: Peng et al. 2023 (YaRN), §3.2; transformers `_compute_yarn_parameters`. */
function yarnFrequencies(rope: RopeSettings): Float32Array {
  const { theta, headDim, parameters } = rope;
  const factor = yarnFactor(rope);
  const context = parameters.original_max_position_embeddings!;
  const correctionDim = (rotations: number): number =>
    (headDim * Math.log(context / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  let low = correctionDim(parameters.beta_fast || 32);
  let high = correctionDim(parameters.beta_slow || 1);
  if (parameters.truncate ?? true) [low, high] = [Math.floor(low), Math.ceil(high)];
  low = Math.max(low, 0);
  high = Math.min(high, headDim - 1);
  if (low === high) high += 0.001;
  return Float32Array.from({ length: headDim / 2 }, (_, i) => {
    const period = theta ** ((2 * i) / headDim);
    const ramp = Math.min(Math.max((i - low) / (high - low), 0), 1);
    return (1 / (factor * period)) * ramp + (1 / period) * (1 - ramp);
  });
}

/** Factor on cosines and sines: 1 but for yarn, where it sharpens attention over long contexts. */
export function attentionScaling(rope: RopeSettings): number {
  if (rope.type !== "yarn") return 1;
  const { attention_factor, mscale, mscale_all_dim } = rope.parameters;
  if (attention_factor != null) return attention_factor;
  const factor = yarnFactor(rope);
  const magnitude = (scale = 1): number => (factor <= 1 ? 1 : 0.1 * scale * Math.log(factor) + 1);
  return mscale && mscale_all_dim ? magnitude(mscale) / magnitude(mscale_all_dim) : magnitude();
}

/**
 * Frequencies of dynamic scaling over a model's life, as transformers keeps them: they grow with the longest sequence seen
 * and fall back to the original ones once a sequence is shorter than the original length.
 */
export class DynamicFrequencies {
  private readonly rope: RopeSettings;
  private longest: number;
  private current: Float32Array;

  constructor(rope: RopeSettings) {
    this.rope = rope;
    this.longest = rope.maxPositionEmbeddings;
    this.current = inverseFrequencies(rope);
  }

  /** Frequencies for a run whose largest position is `sequenceLength - 1`. */
  at(sequenceLength: number): Float32Array {
    const original = this.rope.maxPositionEmbeddings;
    if (sequenceLength > this.longest) {
      this.longest = sequenceLength;
      this.current = inverseFrequencies(this.rope, sequenceLength);
    }
    if (sequenceLength < original && this.longest > original) {
      this.longest = original;
      this.current = inverseFrequencies(this.rope);
    }
    return this.current;
  }
}
