import { stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { LoraConfigOptions } from "../adapters/config-options.ts";
import type { ConfigProblem } from "../adapters/config-problems.ts";
import { CONFIG_FILE } from "../adapters/files.ts";
import { LoraConfig } from "../adapters/index.ts";
import { readJson } from "../checkpoint/index.ts";
import { directoryStore } from "../checkpoint/node.ts";
import { AdapterError } from "../errors.ts";
import { taskTypes } from "../selection/index.ts";
import {
  choice,
  custom,
  FlagProblem,
  type FlagValues,
  flagName,
  integers,
  list,
  number,
  parseNumber,
  readList,
  single,
  text,
  toggle,
} from "./flags.ts";

/**
 * Names, or a pattern: a value with a character that no module name has is a Python regular expression for the whole
 * name; "all-linear" is PEFT's word; anything else is names separated by commas.
 */
function namesOrPattern(given: readonly string[]): string | string[] {
  if (given.length === 1 && given[0]!.trim() === "all-linear") return "all-linear";
  const patterns = given.filter((typed) => /[\\*()[\]^$|+?{}]/.test(typed));
  if (patterns.length === 0) return readList(given);
  const pattern = single(given);
  if (pattern.replace(/\{[^}]*\}|\[[^\]]*\]/g, "").includes(","))
    throw new FlagProblem(
      `mixes a list and a regular expression (${JSON.stringify(pattern)}); write one expression, with | between alternatives`,
    );
  return pattern;
}

/** `q_proj=16,v_proj=4`: patterns may contain commas, and "=" before the last one. */
function patternTable(given: readonly string[]): Map<string, number> {
  const table = new Map<string, number>();
  for (const typed of given)
    for (const part of typed.split(/(?<==\s*[-+]?[\d.]+(?:e[-+]?\d+)?)\s*,\s*/i)) {
      const at = part.lastIndexOf("=");
      const value = parseNumber(part.slice(at + 1));
      const key = part.slice(0, Math.max(at, 0)).trim();
      if (key === "" || value === undefined)
        throw new FlagProblem(
          `must be like q_proj=16,v_proj=4 (module name or regular expression, "=", number), got ${JSON.stringify(part)}`,
        );
      table.set(key, value);
    }
  return table;
}

/** PEFT's LoraConfig as flags. */
export const loraFlags = {
  targetModules: custom(
    "Modules to adapt: names separated by commas, a Python regular expression for the whole name, or all-linear. Default: PEFT's for the type of model.",
    { placeholder: "names|regex" },
    namesOrPattern,
  ),
  excludeModules: custom(
    "Modules to leave out, in the same forms.",
    { placeholder: "names|regex" },
    namesOrPattern,
  ),
  layersToTransform: integers("Numbers of the layers to adapt, such as 4,5. Default: all."),
  layersPattern: custom(
    "Name of the list that holds the layers, such as layers, if there are several.",
    { placeholder: "name" },
    (given) => {
      const names = readList(given);
      return names.length === 1 ? names[0]! : names;
    },
  ),
  r: number("Rank: the width of the low-rank update. Default: 8."),
  loraAlpha: number("The update is scaled by alpha / r. Default: 8."),
  loraDropout: number("Share of an adapter's input dropped in training. Default: 0.", { placeholder: "p" }),
  useRslora: toggle("Scale by alpha / √r instead."),
  initLoraWeights: custom(
    "How adapters start: true, false or gaussian. Default: true, which changes nothing at first.",
    { placeholder: "how" },
    (given) => {
      const typed = single(given);
      return typed === "true" || typed === "false" ? typed === "true" : typed;
    },
  ),
  bias: choice("Biases to train besides. Default: none.", ["none", "all", "lora_only"]),
  modulesToSave: list("Modules to train as a whole and save with the adapter."),
  rankPattern: custom(
    "Other ranks by module: name or regular expression, =, rank; separated by commas.",
    {
      placeholder: "name=r,…",
    },
    patternTable,
  ),
  alphaPattern: custom(
    "Other alphas by module, in the same form.",
    { placeholder: "name=alpha,…" },
    patternTable,
  ),
  ensureWeightTying: toggle("Keep adapters of layers with tied weights tied."),
  taskType: choice("PEFT's task type, written into the configuration.", taskTypes),
};

/** What PEFT selects by and graft does not train. */
export const selectionFlags = {
  targetParameters: list("Parameters to adapt by their names, such as stacked experts."),
  trainableTokenIndices: integers("Tokens whose rows of the input embedding are trained."),
  layerReplication: custom(
    "Ranges of layers to stack a deeper model from, such as 0-4,2-6.",
    { placeholder: "a-b,…" },
    (given) =>
      readList(given).map((range): [number, number] => {
        const match = /^(\d+)-(\d+)$/.exec(range);
        if (!match) throw new FlagProblem(`must be ranges such as 0-4,2-6, got ${JSON.stringify(range)}`);
        return [Number(match[1]), Number(match[2])];
      }),
  ),
  useDora: toggle("Weight-decomposed LoRA."),
  loraBias: toggle("Give adapters a bias."),
  fanInFanOut: toggle("Weights are stored (in, out), as in GPT-2."),
};

export const configFlag = {
  config: text("Take these settings from an adapter_config.json; flags override it.", {
    placeholder: "file",
  }),
};

type LoraFlagValues = FlagValues<typeof loraFlags> & Partial<FlagValues<typeof selectionFlags>>;

/** Those of the flags that were given, as options of LoraConfig. */
export const givenOptions = (values: LoraFlagValues): LoraConfigOptions =>
  // LoraConfig checks what the flags' types leave open
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as LoraConfigOptions;

/** What is wrong with flags, taken by themselves. */
export function loraProblems(values: LoraFlagValues): string[] {
  try {
    new LoraConfig(givenOptions(values));
    return [];
  } catch (error) {
    if (!(error instanceof AdapterError) || !Array.isArray(error.details["problems"])) throw error;
    return (error.details["problems"] as ConfigProblem[]).map(({ field, message, remedy }) => {
      const spelt = message.startsWith(`${field} `) ? flagName(field) + message.slice(field.length) : message;
      return `${spelt}; ${remedy[0]!.toLowerCase()}${remedy.slice(1).replace(/\.$/, "")}`;
    });
  }
}

/**
 * The configuration that a file and flags make together.
 * @throws CheckpointError if the file cannot be read. @throws AdapterError for what is wrong in it, or in the flags.
 */
export async function readLoraConfig(
  file: string | undefined,
  values: LoraFlagValues,
  defaults: LoraConfigOptions = {},
): Promise<LoraConfig> {
  const options = givenOptions(values);
  if (file === undefined) return new LoraConfig({ ...defaults, ...options });
  const isDirectory = await stat(file).then(
    (found) => found.isDirectory(),
    () => false,
  );
  const path = isDirectory ? join(file, CONFIG_FILE) : file;
  const json = await readJson(directoryStore(dirname(path)), basename(path));
  return LoraConfig.fromJSON(json, { file: path }).with(options);
}
