import { LayerExpression } from "../selection/groups/layer-expression.ts";
import { type LayersSpec, taskTypes } from "../selection/index.ts";
import {
  choice,
  custom,
  FlagProblem,
  type FlagValues,
  integers,
  list,
  number,
  parseNumber,
  readList,
  single,
  text,
  toggle,
} from "./flags.ts";

/** Entries (names, globs, regexes, negatives), separated by commas that stand outside of brackets. */
function readEntries(given: readonly string[]): string[] {
  const entries = given.flatMap((typed) => {
    const parts: string[] = [];
    let depth = 0;
    let start = 0;
    for (let i = 0; i < typed.length; i++) {
      const char = typed[i]!;
      if (char === "\\") i++;
      else if ("([{".includes(char)) depth++;
      else if (")]}".includes(char)) depth = Math.max(0, depth - 1);
      else if (char === "," && depth === 0) {
        parts.push(typed.slice(start, i));
        start = i + 1;
      }
    }
    return [...parts, typed.slice(start)];
  });
  const trimmed = entries.map((entry) => entry.trim());
  if (trimmed.includes(""))
    throw new FlagProblem(
      `has an empty place in ${JSON.stringify(given.join(","))}; separate entries by commas`,
    );
  return trimmed;
}

/** `encoder.layers=-2:`, or `-2:` for every stack of layers; several for one list unite. */
function readLayers(given: readonly string[]): LayersSpec {
  const all: string[] = [];
  const byList = new Map<string, string[]>();
  for (const typed of given) {
    const at = typed.lastIndexOf("=");
    const list = typed.slice(0, Math.max(at, 0)).trim();
    const expression = typed.slice(at + 1).trim();
    if (at !== -1 && list === "")
      throw new FlagProblem(`names no list before "=" in ${JSON.stringify(typed)}`);
    const parsed = LayerExpression.parse(expression);
    if (!(parsed instanceof LayerExpression))
      throw new FlagProblem(
        `must be like "encoder.layers=-2:" or "last 4": ${parsed.map(({ term, message }) => `${JSON.stringify(term)} ${message}`).join("; ")}`,
      );
    if (at === -1) all.push(expression);
    else byList.set(list, [...(byList.get(list) ?? []), expression]);
  }
  if (all.length > 0 && byList.size > 0)
    throw new FlagProblem(
      `is given with the name of a list (${[...byList.keys()][0]}) and without one (${all[0]}); name the list each time, or never`,
    );
  return all.length > 0 ? all : byList;
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
    "Modules to adapt, separated by commas: names, globs such as *_proj or **.self_attn.*, Python regular expressions for whole names, all-linear; !name leaves out. Default: PEFT's for the type of model.",
    { placeholder: "entries" },
    readEntries,
  ),
  excludeModules: custom(
    "Modules to leave out, in the same forms but !name.",
    { placeholder: "entries" },
    readEntries,
  ),
  layers: custom(
    'Layers to adapt, of every stack or of the named list: 4-7, -2:, "last 4", "first 25%", odd, !0, encoder.layers=-2:. Give it again for another list. Default: all.',
    { placeholder: "[list=]layers" },
    readLayers,
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
  config: text("Take these settings from an adapter_config.json or a graft.yaml; flags override it.", {
    placeholder: "file",
  }),
};

/** What was typed. */
export type LoraFlagValues = Partial<FlagValues<typeof loraFlags>> &
  Partial<FlagValues<typeof selectionFlags>>;
