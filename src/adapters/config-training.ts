import type { LoraFields } from "./config-options.ts";
import { show } from "./config-problems.ts";

/** A setting that PEFT has and Graft's trainer does not. */
export type Unsupported = {
  readonly field: keyof LoraFields;
  readonly reason: string;
  readonly remedy: string;
  /** It only concerns how weights start: saved weights mean the same without it. */
  readonly loadable: boolean;
};

type Check = readonly [
  field: keyof LoraFields,
  isSet: (fields: LoraFields) => boolean,
  reason: string,
  remedy: string,
];

const leaveOut = "Leave it out to train plain LoRA.";
const hasMembers = (value: object | null): boolean => value !== null && Object.keys(value).length > 0;

/** Null, false and empty lists ask for nothing, except for an empty list of tokens, which wraps the embedding. */
const checks: readonly Check[] = [
  ["useDora", (f) => f.useDora, "weight-decomposed LoRA (DoRA) is not implemented.", leaveOut],
  ["loraBias", (f) => f.loraBias, "adapters with a bias are not implemented.", leaveOut],
  [
    "layerReplication",
    (f) => hasMembers(f.layerReplication),
    "layers cannot be repeated.",
    "Leave it out, or save the deeper model as a checkpoint first.",
  ],
  [
    "targetParameters",
    (f) => hasMembers(f.targetParameters),
    "adapters of single parameters are not implemented.",
    "Use targetModules for layers.",
  ],
  [
    "trainableTokenIndices",
    ({ trainableTokenIndices: tokens }) => (Array.isArray(tokens) ? true : hasMembers(tokens)),
    "training some rows of an embedding is not implemented.",
    "Name the embedding in targetModules, or in modulesToSave to train all of it.",
  ],
  [
    "megatronConfig",
    (f) => hasMembers(f.megatronConfig),
    "Megatron's parallel layers are a Python library.",
    leaveOut,
  ],
  [
    "aloraInvocationTokens",
    (f) => hasMembers(f.aloraInvocationTokens),
    "activated LoRA is not implemented.",
    leaveOut,
  ],
  ["useQalora", (f) => f.useQalora, "quantisation-aware LoRA is not implemented.", leaveOut],
  ["arrowConfig", (f) => f.arrowConfig !== null, "Arrow routing is not implemented.", leaveOut],
  ["kasaConfig", (f) => f.kasaConfig !== null, "KaSA is not implemented.", leaveOut],
  ["montecloraConfig", (f) => f.montecloraConfig !== null, "MonteCLoRA is not implemented.", leaveOut],
  ["useBdlora", (f) => f.useBdlora !== null, "block-diagonal LoRA is not implemented.", leaveOut],
  ["veloraConfig", (f) => f.veloraConfig !== null, "VeLoRA is not implemented.", leaveOut],
  [
    "bias",
    (f) => !["none", "all", "lora_only"].includes(f.bias),
    "it is none of the values with a meaning.",
    'Use "none", "all" or "lora_only".',
  ],
  [
    "loraDropout",
    (f) => !(f.loraDropout >= 0 && f.loraDropout < 1),
    "it is not a probability below 1.",
    "Use a number of at least 0 and less than 1.",
  ],
];

/** Initialisations that leave the base weights as they are. */
const plainInits = ["gaussian", "orthogonal", "eva", "mica"];

/**
 * What in a configuration Graft cannot train, all of it. Settings without an effect are not listed: `false`, null and empty
 * ones, and those of an initialisation that is not used (evaConfig, cordaConfig, loraGaConfig, loftqConfig).
 */
export function unsupportedForTraining(fields: LoraFields): Unsupported[] {
  const found = checks
    .filter(([, isSet]) => isSet(fields))
    .map(([field, , reason, remedy]): Unsupported => ({ field, reason, remedy, loadable: false }));
  const init = fields.initLoraWeights;
  if (typeof init === "boolean" || init === "gaussian") return found;
  const isFalsy = init === null || init === "";
  return [
    ...found,
    {
      field: "initLoraWeights",
      reason: `the initialisation ${show(init)} is not implemented.`,
      remedy: isFalsy
        ? "Use false, which is what PEFT makes of it."
        : init.toLowerCase() === "gaussian"
          ? 'Write "gaussian".'
          : 'Use true, false or "gaussian".',
      loadable: isFalsy || plainInits.includes(init.toLowerCase()),
    },
  ];
}
