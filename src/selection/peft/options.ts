/**
 * Python's tuple, where PEFT treats it unlike a list: a tuple of target modules keeps its order and is never
 * condensed, an empty tuple of layers is a filter that rejects everything. Arrays stand for lists, `Set` for sets.
 */
export class Tuple<T> implements Iterable<T> {
  readonly items: readonly T[];
  constructor(items: Iterable<T>) {
    this.items = [...items];
  }
  [Symbol.iterator](): Iterator<T> {
    return this.items[Symbol.iterator]();
  }
  toJSON(): readonly T[] {
    return this.items;
  }
}

/** Names as a list, a set or a tuple. */
export type Names = readonly string[] | ReadonlySet<string> | Tuple<string>;

/**
 * Pattern to value, in order: the first pattern that matches wins. Use a Map when a key looks like an integer,
 * which plain objects move to the front.
 */
export type PatternTable = Readonly<Record<string, number>> | ReadonlyMap<string, number>;

export type TaskType =
  | "SEQ_CLS"
  | "SEQ_2_SEQ_LM"
  | "CAUSAL_LM"
  | "TOKEN_CLS"
  | "QUESTION_ANS"
  | "FEATURE_EXTRACTION";

/** PEFT's LoraConfig fields, in camelCase, with PEFT's meaning and defaults; all optional. */
export type SelectionConfig = {
  readonly r?: number;
  readonly loraAlpha?: number;
  readonly loraDropout?: number;
  /** Names (each matches a module's name or a dotted tail of it), a regex for the whole name, or "all-linear". */
  readonly targetModules?: string | Names | null;
  readonly excludeModules?: string | Names | null;
  readonly layersToTransform?: number | readonly number[] | Tuple<number> | string | null;
  readonly layersPattern?: string | Names | null;
  readonly rankPattern?: PatternTable | null;
  readonly alphaPattern?: PatternTable | null;
  readonly modulesToSave?: string | Names | null;
  readonly targetParameters?: Names | null;
  readonly trainableTokenIndices?: readonly number[] | Readonly<Record<string, readonly number[]>> | null;
  readonly bias?: string;
  readonly useRslora?: boolean;
  readonly useDora?: boolean;
  readonly loraBias?: boolean;
  readonly initLoraWeights?: boolean | string | null;
  readonly layerReplication?: readonly (readonly [number, number])[] | null;
  readonly fanInFanOut?: boolean;
  readonly ensureWeightTying?: boolean;
  readonly taskType?: TaskType | null;
  readonly inferenceMode?: boolean;
  readonly loftqConfig?: object | null;
  readonly evaConfig?: object | null;
  readonly cordaConfig?: object | null;
  readonly loraGaConfig?: object | null;
  readonly megatronConfig?: object | null;
  readonly aloraInvocationTokens?: readonly number[] | null;
} & { readonly [field in PassiveField]?: unknown } & { readonly [field in UnsupportedField]?: null | false };

/** Fields that never change what is selected; they pass through to the resulting config. */
export const passiveFields = [
  "autoMapping",
  "baseModelNameOrPath",
  "megatronCore",
  "peftType",
  "peftVersion",
  "qaloraGroupSize",
  "revision",
  "runtimeConfig",
] as const;

/** Fields of LoRA variants that are not implemented: anything but null or false is refused. */
export const unsupportedFields = [
  "arrowConfig",
  "kasaConfig",
  "montecloraConfig",
  "useBdlora",
  "useQalora",
  "veloraConfig",
] as const;

type PassiveField = (typeof passiveFields)[number];
type UnsupportedField = (typeof unsupportedFields)[number];

/** The configuration while and after PEFT's injection rewrites it. */
export type ResolvedConfig = {
  r: number;
  loraAlpha: number;
  loraDropout: number;
  targetModules: string | Set<string> | Tuple<string> | null;
  excludeModules: string | Set<string> | Tuple<string> | null;
  layersToTransform: number | readonly number[] | Tuple<number> | string | null;
  layersPattern: string | Names | null;
  rankPattern: Map<string, number> | null;
  alphaPattern: Map<string, number> | null;
  modulesToSave: string | string[] | Set<string> | Tuple<string> | null;
  targetParameters: readonly string[] | Set<string> | Tuple<string> | null;
  trainableTokenIndices: readonly number[] | Readonly<Record<string, readonly number[]>> | null;
  bias: string;
  useRslora: boolean;
  useDora: boolean;
  loraBias: boolean;
  initLoraWeights: boolean | string | null;
  layerReplication: readonly (readonly [number, number])[] | null;
  fanInFanOut: boolean;
  ensureWeightTying: boolean;
  taskType: TaskType | null;
  inferenceMode: boolean;
  aloraInvocationTokens: readonly number[] | null;
  /** Tied modules that follow the input embedding; set by weight tying only. */
  modulesToTie: string[] | null;
  targetModulesToTie: string[] | null;
  /** Fields that selection does not read, as given. */
  other: Record<string, unknown>;
};

/** Number of names; strings and null have none. */
export const countNames = (names: Names | string | null): number =>
  names === null || typeof names === "string"
    ? 0
    : names instanceof Tuple
      ? names.items.length
      : names instanceof Set
        ? names.size
        : (names as readonly string[]).length;

/** True as Python's bool(): a non-empty string or collection. */
export const isTruthy = (value: Names | string | null): boolean =>
  typeof value === "string" ? value !== "" : countNames(value) > 0;
