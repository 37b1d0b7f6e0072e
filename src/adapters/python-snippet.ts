import { LoraConfig } from "./config.ts";
import { fieldNames } from "./config-fields.ts";
import { type LoraFields, snakeCase } from "./config-options.ts";
import { asJson } from "./config-problems.ts";
import { byCodePoints } from "./config-python-json.ts";
import { isRecord } from "./config-values.ts";
import { isVariant, type VariantName } from "./config-variants.ts";

/** PEFT's classes of the settings of variants. Source: PEFT 0.21 tuners/lora/config.py. */
const variantClasses: Readonly<Record<VariantName, string>> = {
  arrowConfig: "ArrowConfig",
  cordaConfig: "CordaConfig",
  evaConfig: "EvaConfig",
  kasaConfig: "KasaConfig",
  loraGaConfig: "LoraGAConfig",
  montecloraConfig: "MontecloraConfig",
  useBdlora: "BdLoraConfig",
  veloraConfig: "VeloraConfig",
};

/** What a saved adapter carries and a new one does not. */
const notForNewAdapters: ReadonlySet<string> = new Set([
  "autoMapping",
  "baseModelNameOrPath",
  "inferenceMode",
  "peftVersion",
  "revision",
]);

export type PythonSnippetOptions = {
  /** Class of the model in transformers, e.g. "LlamaForCausalLM"; without it the model is left to the reader. */
  readonly className?: string | undefined;
  /** What `from_pretrained` is to load. */
  readonly location?: string | undefined;
  /** What `from_pretrained` is given besides, e.g. "trust_remote_code=True". */
  readonly loading?: string | undefined;
};

/**
 * The Python code that does with PEFT what a configuration says: only settings that differ from PEFT's defaults, regular
 * expressions as raw strings, pattern tables in their order.
 */
export function toPython(
  config: LoraConfig,
  { className, location, loading }: PythonSnippetOptions = {},
): string {
  const defaults = new LoraConfig();
  const given = fieldNames.filter(
    (name) => !notForNewAdapters.has(name) && asJson(config[name]) !== asJson(defaults[name]),
  );
  const used = given.filter(isVariant).filter((name) => isRecord(config[name]));
  const classes = ["LoraConfig", "get_peft_model"];
  const imports = [`from peft import ${classes.join(", ")}`];
  if (used.length > 0)
    imports.push(
      `from peft.tuners.lora.config import ${used.map((name) => variantClasses[name]).join(", ")}`,
    );
  if (className) imports.push(`from transformers import ${className}`);
  const settings = given.map((name) => `    ${snakeCase(name)}=${argument(name, config)},`);
  const model = className
    ? [
        `model = ${className}.from_pretrained(${[python(location ?? "…"), ...(loading ? [loading] : [])].join(", ")})`,
      ]
    : ["# model: the model to adapt"];
  return [
    ...imports,
    "",
    ...(settings.length === 0 ? ["config = LoraConfig()"] : ["config = LoraConfig(", ...settings, ")"]),
    ...model,
    "model = get_peft_model(model, config)",
    "model.print_trainable_parameters()",
    "",
  ].join("\n");
}

function argument(name: keyof LoraFields, config: LoraConfig): string {
  const value: unknown = config[name];
  if (isVariant(name) && isRecord(value)) {
    const settings = Object.entries(value).map(([key, item]) => `${snakeCase(key)}=${python(item)}`);
    return `${variantClasses[name]}(${settings.join(", ")})`;
  }
  return python(value);
}

/** A value as a Python literal. */
function python(value: unknown): string {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "number") return pythonNumber(value);
  if (typeof value === "string") return pythonString(value);
  // PEFT makes a set of a list itself; sorted, as it saves it
  if (value instanceof Set) return list([...(value as Set<string>)].sort(byCodePoints));
  if (value instanceof Map) return dict([...(value as Map<string, unknown>)]);
  if (Symbol.iterator in Object(value)) {
    const items = [...(value as Iterable<unknown>)];
    if (Array.isArray(value)) return list(items);
    return items.length === 1 ? `(${python(items[0])},)` : `(${items.map(python).join(", ")})`;
  }
  return dict(Object.entries(value as object));
}

const list = (items: readonly unknown[]): string => `[${items.map(python).join(", ")}]`;
const dict = (entries: readonly (readonly [string, unknown])[]): string =>
  `{${entries.map(([key, item]) => `${python(key)}: ${python(item)}`).join(", ")}}`;

function pythonNumber(value: number): string {
  if (Number.isFinite(value)) return String(value);
  return `float("${Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf"}")`;
}

/** A raw string where backslashes would have to be doubled and may stand as they are. */
function pythonString(text: string): string {
  const isPlain = /^[\x20-\x7e]*$/.test(text) && !text.includes('"');
  if (text.includes("\\") && isPlain && !/\\$/.test(text)) return `r"${text}"`;
  // JSON's escapes are Python's too, but for a lone surrogate pair half, which both write as \udXXX
  return JSON.stringify(text)
    .replace(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)
    .replace(
      /\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})/g,
      (_, high: string, low: string) =>
        `\\U${(0x10000 + (Number.parseInt(high, 16) - 0xd800) * 0x400 + Number.parseInt(low, 16) - 0xdc00).toString(16).padStart(8, "0")}`,
    );
}
