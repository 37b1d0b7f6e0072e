import { Tuple } from "../selection/index.ts";
import { fieldNames } from "./config-fields.ts";
import { type LoraFields, snakeCase } from "./config-options.ts";
import { byCodePoints, PythonFloat, type PythonJson, sortedJson } from "./config-python-json.ts";
import { isVariant, type VariantField, type VariantName, variants } from "./config-variants.ts";

/**
 * The content of adapter_config.json, as PEFT 0.21 writes it: members sorted, sets as sorted lists, settings of variants
 * completed.
 *
 * One thing is better than PEFT's: PEFT also sorts `rank_pattern` and `alpha_pattern`, though the first pattern that
 * matches wins, so that an adapter may not fit the ranks in its own file. Their order is kept where it can matter.
 * @param unknown members that were in the file this configuration came from.
 */
export function savedJson(
  fields: LoraFields,
  unknown: Readonly<Record<string, unknown>>,
): ReadonlyMap<string, PythonJson> {
  const members = new Map<string, PythonJson>([
    ...fieldNames.map((name) => [snakeCase(name), savedValue(name, fields)] as const),
    ...Object.entries(unknown).map(([key, value]) => [key, sortedJson(value)] as const),
    ["peft_type", "LORA"],
  ]);
  return new Map([...members].sort(([a], [b]) => byCodePoints(a, b)));
}

function savedValue(name: keyof LoraFields, fields: LoraFields): PythonJson {
  const { initLoraWeights: init } = fields;
  if (isVariant(name)) {
    const isNeeded = (name === "evaConfig" && init === "eva") || (name === "cordaConfig" && init === "corda");
    const settings = fields[name] ?? (isNeeded ? {} : null);
    return settings && savedVariant(name, settings);
  }
  if (name === "loftqConfig" && init !== "loftq" && fields.loftqConfig !== null) return new Map();
  if (name === "loraDropout") return new PythonFloat(fields.loraDropout);
  if (name === "rankPattern" || name === "alphaPattern") return fields[name] && savedPatterns(fields[name]);
  const value: unknown = fields[name];
  if (value instanceof Set) return [...value].sort(byCodePoints);
  return sortedJson(value instanceof Tuple ? value.items : value);
}

function savedVariant(name: VariantName, settings: Readonly<Record<string, unknown>>): PythonJson {
  const known: Readonly<Record<string, VariantField>> = variants[name];
  const members = new Map<string, PythonJson>(
    Object.entries(settings).map(([key, value]) => [key, sortedJson(value)]),
  );
  for (const [key, { default: fallback, float }] of Object.entries(known)) {
    const value = settings[key] === undefined ? fallback : settings[key];
    members.delete(key);
    members.set(snakeCase(key), float ? new PythonFloat(value as number) : sortedJson(value));
  }
  return new Map([...members].sort(([a], [b]) => byCodePoints(a, b)));
}

/** Patterns sorted, unless that could change which one matches a name first. */
export function savedPatterns(patterns: ReadonlyMap<string, number>): ReadonlyMap<string, number> {
  const given = [...patterns];
  const sorted = given.toSorted(([a], [b]) => byCodePoints(a, b));
  const isFree = given.every(([key, value], i) =>
    given.slice(i + 1).every(([other, otherValue]) => value === otherValue || !mayOverlap(key, other)),
  );
  return isFree ? new Map(sorted) : patterns;
}

/** Whether two patterns can match the same name: two plain names do if one ends in the other. */
function mayOverlap(a: string, b: string): boolean {
  const special = /[\\^$*+?{}[\]|()\n]/;
  if (special.test(a) || special.test(b)) return true;
  const [short, long] = a.length < b.length ? [a, b] : [b, a];
  const start = long.length - short.length;
  if (start > 0 && long[start - 1] !== ".") return false;
  // a dot stands for any character
  return [...short].every((_, i) => {
    const [x, y] = [short[i], long[start + i]];
    return x === y || x === "." || y === ".";
  });
}

/**
 * What PEFT saves as `auto_mapping` where there is no task type, so that its AutoPeftModel finds the base model's class.
 * @param className the class in transformers, e.g. "LlamaForCausalLM".
 * @param modelType `model_type` of the model's config.json.
 */
export const autoMappingOf = (className: string, modelType: string): LoraFields["autoMapping"] => {
  const name = modelType.replaceAll("-", "_");
  return { base_model_class: className, parent_library: `transformers.models.${name}.modeling_${name}` };
};
