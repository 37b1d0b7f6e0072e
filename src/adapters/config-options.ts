import type { Names, PatternTable, ResolvedConfig, TaskType, Tuple } from "../selection/index.ts";

/** Which biases are trained: none, all of the model's, or those of adapted layers. */
export type LoraBias = "none" | "all" | "lora_only";

/** How adapter weights start. Graft trains with `true`, `false` and `"gaussian"`. */
export type InitLoraWeights =
  | boolean
  | "gaussian"
  | "pissa"
  | `pissa_niter_${number}`
  | "olora"
  | "orthogonal"
  | "eva"
  | "corda"
  | "loftq"
  | "lora_ga"
  | "mica";

/** Settings of a LoRA variant; keys in camelCase, on disk in snake_case. */
export type VariantConfig = Readonly<Record<string, unknown>>;

/** PEFT's LoraConfig, every default filled in. On disk the same names are in snake_case. */
export type LoraFields = {
  /** Rank: the width of the low-rank update. */
  r: number;
  /** The update is scaled by loraAlpha / r. */
  loraAlpha: number;
  /** Names (each matches a module's name or a dotted tail of it), a regex for the whole name, or "all-linear". */
  targetModules: string | ReadonlySet<string> | Tuple<string> | null;
  /** Modules to leave out, in the same two forms. */
  excludeModules: string | ReadonlySet<string> | Tuple<string> | null;
  /** Probability of dropping an input of the low-rank update in training. */
  loraDropout: number;
  /** The base weights are stored (in, out), as in GPT-2. */
  fanInFanOut: boolean;
  bias: LoraBias | (string & {});
  /** Scale by loraAlpha / √r instead. */
  useRslora: boolean;
  /** Modules trained and saved as a whole. */
  modulesToSave: readonly string[] | null;
  initLoraWeights: boolean | string | null;
  /** Layer numbers to take; all if null. */
  layersToTransform: number | readonly number[] | Tuple<number> | null;
  /** Name of the list that holds the layers, for layersToTransform. */
  layersPattern: string | readonly string[] | null;
  /** Pattern of module names to rank, in order: the first that matches wins. */
  rankPattern: ReadonlyMap<string, number> | null;
  /** Pattern of module names to alpha, in order. */
  alphaPattern: ReadonlyMap<string, number> | null;
  /** Parameters (not modules) to adapt, by name. */
  targetParameters: readonly string[] | null;
  /** Rows of the input embedding (or of the named embeddings) to train. */
  trainableTokenIndices: readonly number[] | Readonly<Record<string, readonly number[]>> | null;
  useDora: boolean;
  /** Give the second low-rank factor a bias. */
  loraBias: boolean;
  /** Ranges [start, end) of layers from which a deeper model is stacked. */
  layerReplication: readonly (readonly [number, number])[] | null;
  /** Keep adapters of tied layers tied. */
  ensureWeightTying: boolean;
  taskType: TaskType | null;
  /** Written as true with a saved adapter. */
  inferenceMode: boolean;
  baseModelNameOrPath: string | null;
  revision: string | null;
  /** Class and Python module of the base model, for PEFT's AutoPeftModel where there is no task type. */
  autoMapping: Readonly<Record<string, unknown>> | null;
  /** The version that wrote the file; Graft writes files of 0.21.0. */
  peftVersion: string;
  aloraInvocationTokens: readonly number[] | null;
  arrowConfig: VariantConfig | null;
  cordaConfig: VariantConfig | null;
  evaConfig: VariantConfig | null;
  kasaConfig: VariantConfig | null;
  /** Keys as on disk. */
  loftqConfig: Readonly<Record<string, unknown>> | null;
  loraGaConfig: VariantConfig | null;
  /** Keys as on disk. */
  megatronConfig: Readonly<Record<string, unknown>> | null;
  megatronCore: string | null;
  montecloraConfig: VariantConfig | null;
  qaloraGroupSize: number;
  useBdlora: VariantConfig | null;
  useQalora: boolean;
  veloraConfig: VariantConfig | null;
};

/** Fields that accept more, or less, than what they become. */
type AsGiven = {
  targetModules: string | Names | null;
  excludeModules: string | Names | null;
  modulesToSave: Names | null;
  targetParameters: Names | null;
  layersPattern: string | Names | null;
  rankPattern: PatternTable | null;
  alphaPattern: PatternTable | null;
  bias: LoraBias;
  initLoraWeights: InitLoraWeights;
};

/** Options of a LoraConfig; PEFT's names in camelCase, with PEFT's defaults. */
export type LoraConfigOptions = {
  readonly [F in keyof LoraFields]?: (F extends keyof AsGiven ? AsGiven[F] : LoraFields[F]) | undefined;
};

/** What `LoraConfig.with` accepts: options, and the configuration that a selection ends with. */
export type LoraConfigChanges = {
  readonly [F in keyof LoraFields]?:
    | LoraConfigOptions[F]
    | LoraFields[F]
    | (F extends keyof ResolvedConfig ? ResolvedConfig[F] : never);
} & { readonly [F in Exclude<keyof ResolvedConfig, keyof LoraFields>]?: ResolvedConfig[F] };

/** `lora_alpha` to `loraAlpha`. */
export const camelCase = (field: string): string =>
  field.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());

/** `loraAlpha` to `lora_alpha`. */
export const snakeCase = (field: string): string =>
  field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
