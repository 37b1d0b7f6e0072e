import { Tuple } from "../selection/index.ts";
import type { Parsed } from "./config-fields.ts";
import type { LoraFields } from "./config-options.ts";
import { type ConfigProblem, type Origin, show } from "./config-problems.ts";

/** A contradiction between options: which, how PEFT's failure is called, when, what to say. */
type Rule = {
  readonly options: readonly (keyof LoraFields)[];
  readonly code: string;
  readonly broken: (fields: LoraFields) => boolean;
  readonly message: string;
  readonly remedy: string;
};

const isEmpty = (list: LoraFields["layersPattern"]): boolean => list === null || list.length === 0;
const hasSettings = (settings: object | null): boolean =>
  settings !== null && Object.keys(settings).length > 0;

/** In PEFT's order; `{0}` and `{1}` are the options, as they were spelt. */
const rules: readonly Rule[] = [
  {
    options: ["layersToTransform", "targetModules"],
    code: "regex-with-layers-to-transform",
    broken: (f) => typeof f.targetModules === "string" && f.layersToTransform !== null,
    message: "{0} cannot be used when {1} is a string",
    remedy: "Put the layer numbers into the regex, or list the module names.",
  },
  {
    options: ["layersPattern", "targetModules"],
    code: "regex-with-layers-pattern",
    broken: (f) => typeof f.targetModules === "string" && f.layersPattern !== null,
    message: "{0} cannot be used when {1} is a string",
    remedy: "Put the container's name into the regex, or list the module names.",
  },
  {
    options: ["layersPattern", "layersToTransform"],
    code: "layers-pattern-without-layers",
    broken: (f) => !isEmpty(f.layersPattern) && f.layersToTransform === null,
    message: "{0} needs {1}",
    remedy: "Say which layer numbers to take, or leave it out.",
  },
  {
    options: ["useDora", "megatronConfig"],
    code: "other",
    broken: (f) => f.useDora && hasSettings(f.megatronConfig),
    message: "{0} cannot be used with {1}",
    remedy: "Leave one of them out.",
  },
  {
    options: ["initLoraWeights", "loftqConfig"],
    code: "other",
    broken: (f) => f.initLoraWeights === "loftq" && !hasSettings(f.loftqConfig),
    message: '{0} "loftq" needs {1}',
    remedy: 'Give it, for example { "loftq_bits": 4 }, or use another initialisation.',
  },
  {
    options: ["loraBias", "initLoraWeights"],
    code: "lora-bias-with-init",
    broken: (f) => f.loraBias && typeof f.initLoraWeights !== "boolean",
    message: "{0} works only with {1} true or false",
    remedy: "Change one of the two.",
  },
  {
    options: ["loraBias", "useDora"],
    code: "lora-bias-with-dora",
    broken: (f) => f.loraBias && f.useDora,
    message: "{0} cannot be combined with {1}",
    remedy: "Leave one of them out.",
  },
];

/**
 * Contradictions that PEFT refuses, among options that are valid by themselves.
 * Source: PEFT 0.21 LoraConfig.__post_init__.
 */
export const contradictions = ({ fields, refused }: Parsed, { spell }: Origin): ConfigProblem[] =>
  rules
    .filter(({ options, broken }) => !options.some((option) => refused.has(option)) && broken(fields))
    .map(({ options, code, message, remedy }) => {
      const given = options.map((option) => `${spell(option)} ${show(fields[option])}`).join(", ");
      const [field = "", other = ""] = options.map(spell);
      return {
        field,
        code,
        value: plain(fields[options[0]!]),
        message: `${message.replace("{0}", field).replace("{1}", other)} (given ${given})`,
        remedy,
      };
    });

const plain = (value: unknown): unknown =>
  value instanceof Set || value instanceof Tuple ? [...value] : value;
