import type { z } from "zod";
import { nearest } from "../errors.ts";
import { Tuple, taskTypes } from "../selection/index.ts";
import { camelCase, type LoraFields, snakeCase } from "./config-options.ts";
import { type ConfigProblem, invalidValue, type Origin, show } from "./config-problems.ts";
import {
  boolean,
  is,
  isListOf,
  isRecord,
  isText,
  isWhole,
  nameList,
  nameOrList,
  nameSet,
  number,
  recordOrNull,
  table,
  text,
  textOrNull,
  whole,
  wholeList,
  wholeOfAtLeast,
} from "./config-values.ts";
import { isVariant, type VariantField, type VariantName, variants } from "./config-variants.ts";

/**
 * One option. `type` is what PEFT accepts, in a file too; `strict` what can be meant, asked of options that are typed in.
 * `choices`: strings to suggest from.
 */
type Field<T> = {
  readonly type: z.ZodType<T, unknown>;
  readonly strict?: z.ZodType;
  readonly default: T;
  readonly choices?: readonly string[];
};

const biases = ["none", "all", "lora_only"];
const inits = [
  ...[
    "gaussian",
    "pissa",
    "pissa_niter_4",
    "olora",
    "orthogonal",
    "eva",
    "corda",
    "loftq",
    "lora_ga",
    "mica",
  ],
];
const isInit = (value: unknown): boolean =>
  typeof value === "boolean" || (isText(value) && (inits.includes(value) || /^pissa_niter_\d+$/.test(value)));

/** Checked by `variantProblems`, setting by setting. */
const variant = (): Field<Readonly<Record<string, unknown>> | null> => ({
  type: recordOrNull(),
  default: null,
});
const flagType = boolean();
const flag = (): Field<boolean> => ({ type: flagType, default: false });
const numbers = (value: unknown): boolean => isListOf(value, (item) => typeof item === "number");

/** Every option. Source: PEFT 0.21 tuners/lora/config.py. */
const fields: { readonly [F in keyof LoraFields]: Field<LoraFields[F]> } = {
  r: { type: whole(), strict: wholeOfAtLeast(0), default: 8 },
  loraAlpha: { type: number(), default: 8 },
  targetModules: { type: nameSet(), default: null },
  excludeModules: { type: nameSet(), default: null },
  loraDropout: {
    type: number(),
    strict: number("a number of at least 0 and less than 1", (p) => p >= 0 && p < 1),
    default: 0,
  },
  fanInFanOut: flag(),
  bias: {
    type: text(),
    strict: is('"none", "all" or "lora_only"', (value) => biases.includes(value as string)),
    default: "none",
    choices: biases,
  },
  useRslora: flag(),
  modulesToSave: { type: nameList(), default: null },
  initLoraWeights: {
    type: is<boolean | string | null>(
      "true, false, a string or null",
      (value) => value === null || typeof value === "boolean" || isText(value),
    ),
    strict: is(`true, false, ${inits.map((init) => `"${init}"`).join(", ")}`, isInit),
    default: true,
    choices: inits,
  },
  layersToTransform: {
    type: is<LoraFields["layersToTransform"]>(
      "a layer number, a list of layer numbers, or null",
      (value) =>
        value === null ||
        typeof value === "number" ||
        ((Array.isArray(value) || value instanceof Tuple) && numbers(value)),
    ),
    strict: is(
      "a layer number, a list of layer numbers (whole numbers), or null",
      (value) => value === null || isWhole(value) || isListOf(value, isWhole),
    ),
    default: null,
  },
  layersPattern: { type: nameOrList(), default: null },
  rankPattern: {
    type: table("whole numbers", isWhole),
    strict: table("whole numbers of at least 1", (r) => isWhole(r) && r >= 1),
    default: new Map(),
  },
  alphaPattern: { type: table("numbers"), default: new Map() },
  targetParameters: { type: nameList(), default: null },
  trainableTokenIndices: {
    type: is<LoraFields["trainableTokenIndices"]>(
      "a list of token numbers, an object of such lists by embedding, or null",
      (value) =>
        value === null ||
        (Array.isArray(value) && value.every(isWhole)) ||
        (isRecord(value) && Object.values(value).every((list) => Array.isArray(list) && list.every(isWhole))),
    ),
    default: null,
  },
  useDora: flag(),
  loraBias: flag(),
  layerReplication: {
    type: is<LoraFields["layerReplication"]>(
      "a list of [start, end] pairs of layer numbers, or null",
      (value) =>
        value === null ||
        (Array.isArray(value) &&
          value.every((pair) => Array.isArray(pair) && pair.length === 2 && pair.every(isWhole))),
    ),
    default: null,
  },
  ensureWeightTying: flag(),
  taskType: {
    type: is<LoraFields["taskType"]>(
      `one of ${taskTypes.join(", ")}, or null`,
      (value) => value === null || (taskTypes as readonly unknown[]).includes(value),
    ),
    default: null,
    choices: taskTypes,
  },
  inferenceMode: flag(),
  baseModelNameOrPath: { type: textOrNull(), default: null },
  revision: { type: textOrNull(), default: null },
  autoMapping: { type: recordOrNull(), default: null },
  peftVersion: { type: text(), default: "0.21.0" },
  aloraInvocationTokens: { type: wholeList(), default: null },
  arrowConfig: variant(),
  cordaConfig: variant(),
  evaConfig: variant(),
  kasaConfig: variant(),
  loftqConfig: { type: recordOrNull(), default: {} },
  loraGaConfig: variant(),
  megatronConfig: { type: recordOrNull(), default: null },
  megatronCore: { type: textOrNull(), default: "megatron.core" },
  montecloraConfig: variant(),
  qaloraGroupSize: { type: whole(), default: 16 },
  useBdlora: variant(),
  useQalora: flag(),
  veloraConfig: variant(),
};

export const fieldNames = Object.keys(fields) as (keyof LoraFields)[];
export const isField = (name: string): name is keyof LoraFields => Object.hasOwn(fields, name);

/** Whether an option is a switch; PEFT takes null for false. */
export const isFlag = (name: keyof LoraFields): boolean => fields[name].type === flagType;

const defaultsOf = (): LoraFields =>
  Object.fromEntries(fieldNames.map((name) => [name, fields[name].default])) as LoraFields;

/** Names that people, papers and other tools use for an option. */
const otherNames: Record<string, string> = {
  rank: "r",
  loraR: "r",
  alpha: "loraAlpha",
  dropout: "loraDropout",
  loraRank: "r",
  rslora: "useRslora",
  dora: "useDora",
  initWeights: "initLoraWeights",
  targets: "targetModules",
  modules: "targetModules",
  layers: "layersToTransform",
};

/** The problem of an option that does not exist. */
export function unknownOption(
  name: string,
  value: unknown,
  candidates: readonly string[] = fieldNames,
): ConfigProblem {
  const camel = camelCase(name);
  const last = camel.split(".").at(-1)!;
  const close = candidates.includes(last) ? last : (otherNames[last] ?? nearest(last, candidates, 1)[0]);
  return {
    field: name,
    code: "unknown-option",
    value,
    message: `there is no option ${name} (given ${show(value)})`,
    remedy: close === undefined ? "Leave it out." : `Use ${close}.`,
  };
}

export type Parsed = {
  readonly fields: LoraFields;
  readonly problems: ConfigProblem[];
  /** Fields whose value was refused; they hold the default. */
  readonly refused: ReadonlySet<string>;
};

/**
 * Checks options one by one and fills in PEFT's defaults; `undefined` counts as left out.
 * @param given by camelCase names, all of them known.
 * @param strict which of them must make sense too, rather than only be what PEFT accepts.
 */
export function parseFields(
  given: Readonly<Record<string, unknown>>,
  { spell }: Origin,
  strict: (field: string) => boolean,
): Parsed {
  const parsed = defaultsOf() as Record<keyof LoraFields, unknown>;
  const problems: ConfigProblem[] = [];
  const refused = new Set<string>();
  for (const [name, value] of Object.entries(given)) {
    if (!isField(name) || value === undefined) continue;
    const field: Field<unknown> = fields[name];
    const isStrict = strict(name);
    const result = ((isStrict && field.strict) || field.type).safeParse(value);
    const found = result.success
      ? isVariant(name) && isRecord(value)
        ? variantProblems(name, value, spell, isStrict)
        : []
      : [
          {
            ...invalidValue(
              spell(name),
              value,
              result.error.issues[0]!.message,
              `Leave it out for the default, ${show(field.default)}.`,
              field.choices,
            ),
            ...(name === "taskType" && { code: "unknown-task-type" }),
            ...(name === "targetParameters" && isText(value) && { code: "parameters-not-a-list" }),
          },
        ];
    problems.push(...found);
    if (found.length > 0) refused.add(name);
    else parsed[name] = field.type.parse(value);
  }
  return { fields: parsed as LoraFields, problems, refused };
}

/** Problems of a variant's settings; in a file, unknown ones are kept as they are. */
function variantProblems(
  name: VariantName,
  settings: Readonly<Record<string, unknown>>,
  spell: Origin["spell"],
  isStrict: boolean,
): ConfigProblem[] {
  const known: Readonly<Record<string, VariantField>> = variants[name];
  return Object.entries(settings).flatMap(([key, value]) => {
    const field = Object.hasOwn(known, key) ? known[key] : undefined;
    const spelt = `${spell(name)}.${field === undefined ? key : spell(key)}`;
    if (field === undefined) return isStrict ? [unknownOption(spelt, value, Object.keys(known))] : [];
    const result = field.type.safeParse(value);
    if (result.success) return [];
    const fallback = `Leave it out for the default, ${show(field.default)}.`;
    return [invalidValue(spelt, value, result.error.issues[0]!.message, fallback)];
  });
}

/** Settings of a variant in a file, with known keys in camelCase; others stay as they are. */
export const readVariant = (
  name: VariantName,
  settings: Readonly<Record<string, unknown>>,
): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(settings).map(([key, value]) => {
      const camel = camelCase(key);
      return [Object.hasOwn(variants[name], camel) && snakeCase(camel) === key ? camel : key, value];
    }),
  );
