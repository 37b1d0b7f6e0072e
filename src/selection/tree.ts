import { SelectionError } from "../errors.ts";

/** What a module is, as far as LoRA cares; subclasses count as their base class. */
export const moduleKinds = [
  "linear",
  "conv1d_hf",
  "conv1d",
  "conv2d",
  "conv3d",
  "embedding",
  "mha",
  "norm",
  "dropout",
  "identity",
  "modulelist",
  "moduledict",
  "module",
] as const;

export type ModuleKind = (typeof moduleKinds)[number];

/** Kinds of modules that can carry LoRA. */
export const adaptableKinds: ReadonlySet<ModuleKind> = new Set([
  "linear",
  "conv1d_hf",
  "conv1d",
  "conv2d",
  "conv3d",
  "embedding",
  "mha",
]);

/** A parameter's or buffer's own name and its shape. */
export type NamedShape = readonly [name: string, shape: readonly number[]];

/** One module of a model, as `named_modules()` of PyTorch lists it. */
export type ModuleInfo = {
  /** Dotted path; `""` is the root. */
  readonly name: string;
  readonly className: string;
  readonly kind: ModuleKind;
  /** Input features, channels or embedding rows; null where the kind has none. */
  readonly in: number | null;
  readonly out: number | null;
  /** Parameters that belong to this module itself. */
  readonly parameters: readonly NamedShape[];
  readonly extra?: ModuleExtra;
};

/** What convolutions and stacked experts need beyond in and out. */
export type ModuleExtra = {
  readonly kernelSize?: number | readonly number[];
  readonly groups?: number;
  readonly stride?: number | readonly number[];
  /** In numbers, or PyTorch's words. */
  readonly padding?: number | readonly number[] | "valid" | "same";
  /** Stacked experts stored (experts, in, out) instead of (experts, out, in). */
  readonly isTransposed?: boolean;
};

/** The fields of a model's config.json that selection and its costs read; `null` is as good as absent. */
export type TreeConfig = {
  readonly modelType?: string;
  readonly tieWordEmbeddings?: boolean | null;
  /** Of the stored weights: "float32", "bfloat16"… */
  readonly dtype?: string;
  readonly numAttentionHeads?: number;
  /** Where encoder and decoder differ. */
  readonly encoderAttentionHeads?: number;
  readonly decoderAttentionHeads?: number;
  /** Probabilities of the model's own dropouts in training: of hidden states, attention weights, activations. */
  readonly dropout?: number;
  readonly attentionDropout?: number;
  readonly activationDropout?: number;
  /** Experts that each token goes through, in a mixture of them. */
  readonly numExpertsPerToken?: number;
  /** Height and width of the images that a vision model was made for. */
  readonly imageSize?: number;
  /** Height and width of the windows of a vision model's attention. */
  readonly windowSize?: number;
  /** Heads of a vision model's attention, and groups of channels, stage by stage. */
  readonly stageHeads?: readonly number[];
  readonly stageGroups?: readonly number[];
  readonly textConfig?: TreeConfig;
  readonly visionConfig?: TreeConfig;
};

/**
 * A model as module names, kinds and shapes; no weights. Modules are in registration order, parents before
 * children, and a module reachable by two paths is listed once, under its first path.
 */
export type ModuleTree = {
  readonly name: string;
  readonly modelType: string;
  readonly className: string;
  readonly config: TreeConfig;
  readonly modules: readonly ModuleInfo[];
  /** Name of the module that embeds the input tokens, of the one that scores the output tokens. */
  readonly inputEmbeddings: string | null;
  readonly outputEmbeddings: string | null;
  /** Which of `score`, `classifier` the top-level model has. */
  readonly seqClsHeads: readonly string[];
  /** `[parameter path, first path of the same parameter]`. */
  readonly tiedWeights: readonly (readonly [string, string])[];
  /** Modules that share the input embedding's weight by the model's own declaration. */
  readonly tiedWithEmbedding: readonly string[];
  /** Set where the model cannot even say what is tied: Python's exception, `[type, message]`. */
  readonly tiedLookupError?: readonly [type: string, message: string];
  /** `[path, first path]` of module objects reachable twice. */
  readonly duplicateModules: readonly (readonly [string, string])[];
  /** Parameters, tied ones counted once. */
  readonly numParameters: number;
  /** Whether it is a transformers model: only then does all-linear leave the output head out. */
  readonly isPretrainedModel: boolean;
  /** Every saved tensor: parameters and persistent buffers, each path of a tied one. */
  readonly stateDict?: readonly NamedShape[];
};

type Json = Record<string, unknown>;

/** The same field by the names that config.json of different models has for it. */
const configNames = {
  dtype: ["dtype", "torch_dtype"],
  numAttentionHeads: [
    ...["num_attention_heads", "n_head", "num_heads", "n_heads"],
    ...["encoder_attention_heads", "decoder_attention_heads"],
  ],
  encoderAttentionHeads: ["encoder_attention_heads"],
  decoderAttentionHeads: ["decoder_attention_heads"],
  dropout: ["dropout"],
  attentionDropout: ["attention_dropout"],
  activationDropout: ["activation_dropout"],
  numExpertsPerToken: ["num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k_experts"],
  imageSize: ["image_size"],
  windowSize: ["window_size"],
} as const;

/** What selection and its costs read of a config.json. */
export function parseTreeConfig(config: Readonly<Json>): TreeConfig {
  const find = (names: readonly string[], type: "string" | "number"): unknown =>
    names.map((name) => config[name]).find((value) => typeof value === type);
  const { dtype, ...counts } = configNames;
  const numbers = (name: string): number[] | undefined => {
    const value = config[name];
    return Array.isArray(value) && value.every((n) => typeof n === "number") ? value : undefined;
  };
  const tie = config["tie_word_embeddings"];
  const parsed = {
    modelType: typeof config["model_type"] === "string" ? config["model_type"] : undefined,
    tieWordEmbeddings: typeof tie === "boolean" ? tie : undefined,
    dtype: find(dtype, "string"),
    ...Object.fromEntries(Object.entries(counts).map(([field, names]) => [field, find(names, "number")])),
    stageHeads: numbers("num_heads"),
    stageGroups: numbers("num_groups"),
    textConfig: isObject(config["text_config"]) ? parseTreeConfig(config["text_config"]) : undefined,
    visionConfig: isObject(config["vision_config"]) ? parseTreeConfig(config["vision_config"]) : undefined,
  };
  return Object.fromEntries(Object.entries(parsed).filter(([, value]) => value !== undefined));
}

/**
 * Reads a skeleton: the JSON description of a module tree written by `scripts/make_skeletons.py`.
 * @throws SelectionError `invalid-skeleton` naming the field or row that is missing or malformed.
 */
export function parseSkeleton(json: unknown): ModuleTree {
  if (!isObject(json)) throw invalid("a JSON object", json);
  const rows = json["modules"];
  if (!Array.isArray(rows) || rows.length === 0) throw invalid('a non-empty array in "modules"', rows);
  const config = isObject(json["config"]) ? json["config"] : {};
  const modelType = String(json["model_type"] ?? config["model_type"] ?? "custom");
  const tied = json["tied_with_embedding"];
  return {
    name: String(json["name"] ?? modelType),
    modelType,
    className: String(json["class"] ?? (rows[0] as unknown[])[1] ?? ""),
    config: { ...parseTreeConfig(config), modelType },
    modules: rows.map(parseRow),
    inputEmbeddings: nameOrNull(json["input_embeddings"]),
    outputEmbeddings: nameOrNull(json["output_embeddings"]),
    seqClsHeads: list<string>(json["seq_cls_heads"]),
    tiedWeights: list<[string, string]>(json["tied_weights"]),
    tiedWithEmbedding: list<string>(tied),
    ...(isObject(tied) && Array.isArray(tied["error"])
      ? { tiedLookupError: tied["error"] as [string, string] }
      : {}),
    duplicateModules: list<[string, string]>(json["duplicate_modules"]),
    numParameters: Number(json["num_parameters"] ?? 0),
    isPretrainedModel: json["is_pretrained_model"] !== false,
    ...(Array.isArray(json["state_dict"]) ? { stateDict: json["state_dict"] as NamedShape[] } : {}),
  };
}

const knownKinds: ReadonlySet<unknown> = new Set(moduleKinds);

function parseRow(row: unknown, index: number): ModuleInfo {
  if (!Array.isArray(row) || row.length < 6)
    throw invalid("[name, class, kind, in, out, parameters, extra?]", row, index);
  const name: unknown = row[0];
  const className: unknown = row[1];
  const kind: unknown = row[2];
  const parameters: unknown = row[5];
  const extra: unknown = row[6];
  if (typeof name !== "string" || typeof className !== "string")
    throw invalid("a name and a class", row, index);
  if (!knownKinds.has(kind)) throw invalid(`a kind of ${moduleKinds}`, kind, index);
  if (!Array.isArray(parameters)) throw invalid("an array of [parameter, shape]", parameters, index);
  const module: ModuleInfo = {
    name,
    className,
    kind: kind as ModuleKind,
    in: row[3] as number | null,
    out: row[4] as number | null,
    parameters: parameters as NamedShape[],
  };
  return isObject(extra) ? { ...module, extra: parseExtra(extra) } : module;
}

const parseExtra = (extra: Json): ModuleExtra => ({
  ...("kernel_size" in extra ? { kernelSize: extra["kernel_size"] as number | number[] } : {}),
  ...("groups" in extra ? { groups: extra["groups"] as number } : {}),
  ...("stride" in extra ? { stride: extra["stride"] as number | number[] } : {}),
  ...("padding" in extra ? { padding: extra["padding"] as number | number[] | "valid" | "same" } : {}),
  ...("is_transposed" in extra ? { isTransposed: extra["is_transposed"] as boolean } : {}),
});

const isObject = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const nameOrNull = (value: unknown): string | null => (typeof value === "string" ? value : null);
const list = <T>(value: unknown): T[] => (Array.isArray(value) ? (value as T[]) : []);

function invalid(expected: string, got: unknown, row?: number): SelectionError {
  const where = row === undefined ? "" : ` in row ${row} of "modules"`;
  const text = JSON.stringify(got) ?? "nothing";
  return new SelectionError(
    `The skeleton is malformed: expected ${expected}${where}, got ${text.slice(0, 80)}. ` +
      "Write it with scripts/make_skeletons.py.",
    { code: "invalid-skeleton", details: row === undefined ? {} : { row } },
  );
}
