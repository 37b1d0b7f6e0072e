import { nearest } from "../../errors.ts";
import { failure, type Warnings } from "../failure.ts";
import {
  isTruthy,
  type Names,
  type PatternTable,
  passiveFields,
  type ResolvedConfig,
  type SelectionConfig,
  type TaskType,
  Tuple,
  unsupportedFields,
} from "./options.ts";

export const taskTypes: readonly TaskType[] = [
  "SEQ_CLS",
  "SEQ_2_SEQ_LM",
  "CAUSAL_LM",
  "TOKEN_CLS",
  "QUESTION_ANS",
  "FEATURE_EXTRACTION",
];

const defaults: Omit<ResolvedConfig, "other"> = {
  r: 8,
  loraAlpha: 8,
  loraDropout: 0,
  targetModules: null,
  excludeModules: null,
  layersToTransform: null,
  layersPattern: null,
  rankPattern: new Map(),
  alphaPattern: new Map(),
  modulesToSave: null,
  targetParameters: null,
  trainableTokenIndices: null,
  bias: "none",
  useRslora: false,
  useDora: false,
  loraBias: false,
  initLoraWeights: true,
  layerReplication: null,
  fanInFanOut: false,
  ensureWeightTying: false,
  taskType: null,
  inferenceMode: false,
  aloraInvocationTokens: null,
  modulesToTie: null,
  targetModulesToTie: null,
};

const initFields = ["loftqConfig", "evaConfig", "cordaConfig", "loraGaConfig", "megatronConfig"] as const;

const knownFields: ReadonlySet<string> = new Set([
  ...Object.keys(defaults),
  ...initFields,
  ...passiveFields,
  ...unsupportedFields,
]);

/**
 * Applies defaults and PEFT's checks of a LoraConfig, in PEFT's order; the first that fails throws.
 * Lists of target and excluded modules become sets. Nothing that the caller passed is changed later.
 * @throws SelectionError with stage "config".
 * Source: PEFT 0.21 `LoraConfig.__post_init__`.
 */
export function resolveConfig(given: SelectionConfig, warnings: Warnings): ResolvedConfig {
  refuseUnknown(given);
  const config = withDefaults(given);
  if (config.taskType !== null && !taskTypes.includes(config.taskType))
    throw bad("unknown-task-type", `taskType ${JSON.stringify(config.taskType)} is unknown.`, [
      `Use one of ${taskTypes.join(", ")}, or leave it out.`,
    ]);
  checkTargets(config);
  if (config.useDora && given.megatronConfig)
    throw bad("other", "useDora cannot be used with megatronConfig.", ["Set one of them to null or false."]);
  checkInit(config, given, warnings);
  warnAboutVariants(config, warnings);
  return config;
}

function withDefaults(given: SelectionConfig): ResolvedConfig {
  const config: ResolvedConfig = { ...defaults, rankPattern: null, alphaPattern: null, other: {} };
  for (const [field, value] of Object.entries(given)) {
    if (value === undefined) continue;
    if (field in defaults) (config as Record<string, unknown>)[field] = value;
    else config.other[field] = value;
  }
  config.targetModules = asSet(given.targetModules);
  config.excludeModules = asSet(given.excludeModules);
  config.rankPattern = asTable(given.rankPattern);
  config.alphaPattern = asTable(given.alphaPattern);
  if (Array.isArray(config.modulesToSave)) config.modulesToSave = [...config.modulesToSave];
  return config;
}

/** A list becomes a set; text, sets and tuples stay what they are. */
const asSet = (names: string | Names | null | undefined): ResolvedConfig["targetModules"] =>
  names === null || names === undefined
    ? null
    : typeof names === "string" || names instanceof Tuple
      ? names
      : new Set(names);

function asTable(table: PatternTable | null | undefined): Map<string, number> | null {
  if (table === null) return null;
  if (table === undefined) return new Map();
  return new Map(table instanceof Map ? table : Object.entries(table as Record<string, number>));
}

function refuseUnknown(given: SelectionConfig): void {
  const unknown = Object.keys(given).filter((field) => !knownFields.has(field));
  if (unknown.length > 0) {
    const hints = unknown.flatMap((field) => nearest(field, knownFields, 1));
    throw failure(
      "config",
      "TypeError",
      "other",
      `LoraConfig has no field ${unknown.map((field) => JSON.stringify(field)).join(", ")}.` +
        (hints.length > 0 ? ` Closest: ${hints.map((hint) => JSON.stringify(hint)).join(", ")}.` : ""),
      { fields: unknown, nearest: hints },
    );
  }
  for (const field of unsupportedFields)
    if (given[field])
      throw failure(
        "config",
        "NotImplementedError",
        "unsupported-option",
        `${field} is a LoRA variant that Graft does not implement. Leave it out to train plain LoRA.`,
        { field },
      );
}

function checkTargets(config: ResolvedConfig): void {
  const { targetModules, targetParameters, layersToTransform, layersPattern } = config;
  if (typeof targetParameters === "string")
    throw bad(
      "parameters-not-a-list",
      "targetParameters must be a list of names, not a string.",
      [`Use [${JSON.stringify(targetParameters)}].`],
      "TypeError",
    );
  if (typeof targetModules === "string" && layersToTransform !== null)
    throw bad(
      "regex-with-layers-to-transform",
      `layersToTransform cannot be used when targetModules is a string (${JSON.stringify(targetModules)}).`,
      ["Put the layer numbers into the regex, or list the module names."],
    );
  if (typeof targetModules === "string" && layersPattern !== null)
    throw bad(
      "regex-with-layers-pattern",
      `layersPattern cannot be used when targetModules is a string (${JSON.stringify(targetModules)}).`,
      ["Put the container's name into the regex, or list the module names."],
    );
  if (isTruthy(layersPattern) && layersToTransform === null)
    throw bad("layers-pattern-without-layers", "layersPattern needs layersToTransform.", [
      "Say which layer indices to take, or leave layersPattern out.",
    ]);
}

function checkInit(config: ResolvedConfig, given: SelectionConfig, warnings: Warnings): void {
  const init = config.initLoraWeights;
  if (init === "loftq")
    throw bad(
      "other",
      'initLoraWeights "loftq" quantises the base model with scipy and bitsandbytes, which are Python packages.',
      ['Use true, "gaussian", "pissa" or another initialisation.'],
      "ImportError",
    );
  const { loftqConfig, evaConfig = null, cordaConfig = null } = given;
  if (loftqConfig && Object.keys(loftqConfig).length > 0) {
    config.other["loftqConfig"] = {};
    warnings.add("loftq-config", 'loftqConfig is ignored because initLoraWeights is not "loftq".');
  } else if (init === "eva" && evaConfig === null)
    warnings.add("eva-default-config", 'initLoraWeights is "eva" without evaConfig: its defaults are used.');
  else if (init !== "eva" && evaConfig !== null)
    warnings.add("eva-default-config", 'evaConfig is ignored because initLoraWeights is not "eva".');
  else if (init === "corda" && cordaConfig === null)
    warnings.add(
      "corda-default-config",
      'initLoraWeights is "corda" without cordaConfig: defaults are used.',
    );
  else if (init !== "corda" && cordaConfig !== null)
    warnings.add("corda-default-config", 'cordaConfig is ignored because initLoraWeights is not "corda".');
  if (config.loraBias && init !== true && init !== false)
    throw bad(
      "lora-bias-with-init",
      `loraBias works only with initLoraWeights true or false, not ${JSON.stringify(init)}.`,
      ["Change one of the two."],
    );
  if (config.loraBias && config.useDora)
    throw bad("lora-bias-with-dora", "loraBias cannot be combined with useDora.", ["Set useDora to false."]);
}

function warnAboutVariants(config: ResolvedConfig, warnings: Warnings): void {
  if (config.aloraInvocationTokens !== null && config.taskType !== "CAUSAL_LM")
    warnings.add("other", "aLoRA (aloraInvocationTokens) is meant for taskType CAUSAL_LM only.");
  const init = config.initLoraWeights;
  const changesBase =
    typeof init === "string" && (init.startsWith("pissa") || ["olora", "corda", "lora_ga"].includes(init));
  const hasPattern = (config.rankPattern?.size ?? 0) > 0 || (config.alphaPattern?.size ?? 0) > 0;
  if (config.useRslora && hasPattern && changesBase)
    warnings.add(
      "rslora-pattern-with-mutating-init",
      `With useRslora and rank or alpha patterns, the base weights that ${JSON.stringify(init)} changes cannot be ` +
        "restored when the adapter is saved.",
    );
}

const bad = (code: string, what: string, remedy: readonly string[], pythonType = "ValueError") =>
  failure("config", pythonType, code, [what, ...remedy].join(" "));
