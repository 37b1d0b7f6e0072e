import { stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { type ConfigWarning, LoraConfig } from "../adapters/config.ts";
import type { LoraConfigOptions } from "../adapters/config-options.ts";
import type { ConfigProblem } from "../adapters/config-problems.ts";
import { CONFIG_FILE } from "../adapters/files.ts";
import type { SelectionFile } from "../adapters/selection-file.ts";
import { AdapterError } from "../errors.ts";
import { LayerExpression } from "../selection/groups/layer-expression.ts";
import {
  type CompiledSelection,
  type GroupedSelection,
  type GroupSpec,
  type GroupWarning,
  type LayersSpec,
  type ModuleTree,
  parseEntry,
  taskTypes,
} from "../selection/index.ts";
import { throwProblems } from "./errors.ts";
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

type LoraFlagValues = Partial<FlagValues<typeof loraFlags>> & Partial<FlagValues<typeof selectionFlags>>;

/** Those of the flags that were given. */
export const givenOptions = (values: LoraFlagValues): Partial<LoraFlagValues> =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));

/** Flags that only groups can say, and all the others as options of LoraConfig. */
type Split = {
  readonly targetModules: readonly string[] | undefined;
  readonly excludeModules: readonly string[] | undefined;
  readonly layers: LayersSpec | undefined;
  /** What the flags say, if PEFT can say it too: names, one regular expression, all-linear, no layers. */
  readonly plain: LoraConfigOptions | undefined;
  readonly others: LoraConfigOptions;
};

function split(values: LoraFlagValues): Split {
  const { targetModules, excludeModules, layers, ...rest } = givenOptions(values);
  // LoraConfig checks what the flags' types leave open
  const others = rest as LoraConfigOptions;
  const targets = targetModules && plainEntries(targetModules, { allLinear: true });
  const excluded = excludeModules && plainEntries(excludeModules, { allLinear: false });
  const isPlain = layers === undefined && targets !== null && excluded !== null;
  const plain = isPlain
    ? {
        ...others,
        ...(targets !== undefined && { targetModules: targets }),
        ...(excluded !== undefined && { excludeModules: excluded }),
      }
    : undefined;
  return { targetModules, excludeModules, layers, plain, others };
}

/** Entries in PEFT's own form; null if it has none. */
function plainEntries(
  typed: readonly string[],
  { allLinear }: { allLinear: boolean },
): string | string[] | null {
  const entries = typed.map(parseEntry);
  const [first] = entries;
  if (entries.some(({ isNegative }) => isNegative)) return null;
  if (entries.every(({ kind }) => kind === "name")) return entries.map(({ body }) => body);
  if (entries.length > 1) return null;
  if (first!.kind === "regex") return first!.body;
  return first!.kind === "all-linear" && allLinear ? "all-linear" : null;
}

/** What is wrong with flags, taken by themselves. */
export function loraProblems(values: LoraFlagValues): string[] {
  const { plain, others } = split(values);
  const clashes = layerClashes(values);
  try {
    new LoraConfig(clashes.length > 0 ? withoutLayers(others) : (plain ?? others));
    return clashes;
  } catch (error) {
    if (!(error instanceof AdapterError) || !Array.isArray(error.details["problems"])) throw error;
    const problems = (error.details["problems"] as ConfigProblem[]).map(({ field, message, remedy }) => {
      const spelt = message.startsWith(`${field} `) ? flagName(field) + message.slice(field.length) : message;
      return `${spelt}; ${remedy[0]!.toLowerCase()}${remedy.slice(1).replace(/\.$/, "")}`;
    });
    return [...clashes, ...problems];
  }
}

/** Flags that say twice, and in two ways, which layers. */
const layerClashes = ({ layers, layersToTransform, layersPattern }: LoraFlagValues): string[] =>
  layers === undefined
    ? []
    : Object.entries({ layersToTransform, layersPattern })
        .filter(([, value]) => value !== undefined)
        .map(([name]) => `--layers and ${flagName(name)} both say which layers to adapt; give one of them`);

const withoutLayers = ({
  layersToTransform: _,
  layersPattern: __,
  ...others
}: LoraConfigOptions): LoraConfigOptions => others;

/** What a person asks for; what it adapts may depend on the model. */
export type AdapterRequest = {
  /** All options, but what the groups say. */
  readonly config: LoraConfig;
  /** What PEFT's options cannot say by themselves; they are compiled for a model. */
  readonly groups?: readonly GroupSpec[];
  readonly warnings: readonly ConfigWarning[];
};

/** A request for one model. */
export type ResolvedAdapter = {
  /** PEFT's options only. */
  readonly config: LoraConfig;
  /** Where there were groups: who takes what. */
  readonly compiled?: CompiledSelection;
  /** About the file and the groups; those of `config` are among them. */
  readonly warnings: readonly GroupWarning[];
};

/**
 * What a file (adapter_config.json, graft.yaml, or the same as JSON) and flags ask for together.
 * @throws CheckpointError if the file cannot be read. @throws AdapterError for what is wrong in it, or in the flags.
 * @throws UsageError if flags contradict each other, or the groups of the file.
 */
export async function readAdapter(
  file: string | undefined,
  values: LoraFlagValues,
  defaults: LoraConfigOptions = {},
): Promise<AdapterRequest> {
  throwProblems(layerClashes(values));
  const { plain, others, targetModules, excludeModules, layers } = split(values);
  if (file === undefined) {
    if (plain !== undefined) return { config: new LoraConfig({ ...defaults, ...plain }), warnings: [] };
    const group: GroupSpec = {
      targetModules,
      excludeModules,
      layers: layers ?? peftLayers(new LoraConfig(pickLayers(others))),
    };
    const config = new LoraConfig({ ...defaults, ...withoutLayers(others) });
    return { config, groups: [group], warnings: [] };
  }
  const { config, groups, warnings } = await readConfigFile(file);
  if (groups !== undefined) {
    throwProblems(
      Object.entries({ targetModules, layers, ...pickLayers(others) })
        .filter(([, value]) => value !== undefined)
        .map(
          ([name]) =>
            `${flagName(name)} does not fit ${file}, which has groups of its own; leave it out, or change the file`,
        ),
    );
    const changed = excludeModules === undefined ? others : { ...others, excludeModules };
    return { config: config.with(changed), groups, warnings };
  }
  if (plain !== undefined) return { config: config.with(plain), warnings };
  const group: GroupSpec = {
    targetModules: targetModules ?? peftEntries(config.targetModules),
    excludeModules: excludeModules ?? peftEntries(config.excludeModules),
    layers: layers ?? peftLayers(config.with(pickLayers(others))),
  };
  const nothing = { targetModules: null, excludeModules: null, layersToTransform: null, layersPattern: null };
  return { config: config.with({ ...withoutLayers(others), ...nothing }), groups: [group], warnings };
}

const pickLayers = ({ layersToTransform, layersPattern }: LoraConfigOptions): LoraConfigOptions => ({
  ...(layersToTransform !== undefined && { layersToTransform }),
  ...(layersPattern !== undefined && { layersPattern }),
});

/** PEFT's names or pattern as entries that mean the same. */
function peftEntries(names: LoraConfig["targetModules"]): string[] | undefined {
  if (names === null) return undefined;
  if (typeof names !== "string") return [...names].map((name) => `name:${name}`);
  return [names.toLowerCase() === "all-linear" ? names : `regex:${names}`];
}

/** PEFT's layers as those of a group. */
function peftLayers({ layersToTransform, layersPattern }: LoraConfig): LayersSpec | undefined {
  if (layersToTransform === null) return undefined;
  const layers = typeof layersToTransform === "number" ? layersToTransform : [...layersToTransform];
  if (Array.isArray(layers) && layers.length === 0) return undefined;
  if (layersPattern === null || layersPattern.length === 0) return layers;
  const patterns = typeof layersPattern === "string" ? [layersPattern] : layersPattern;
  return new Map(patterns.map((pattern) => [pattern, layers]));
}

async function readConfigFile(file: string): Promise<SelectionFile> {
  const isDirectory = await stat(file).then(
    (found) => found.isDirectory(),
    () => false,
  );
  const path = isDirectory ? join(file, CONFIG_FILE) : file;
  const { directoryStore } = await import("../checkpoint/local/node.ts");
  const { readSelectionFile } = await import("../adapters/selection-file.ts");
  return readSelectionFile(directoryStore(dirname(path)), basename(path), { file: path });
}

/**
 * What a request adapts in a model, as PEFT's options.
 * @throws SelectionError if its groups do not fit the model, or PEFT cannot express them.
 */
export async function resolveAdapter(
  { config, groups, warnings }: AdapterRequest,
  tree: ModuleTree,
): Promise<ResolvedAdapter> {
  if (groups === undefined) return { config, warnings };
  const { targetModules: _, layersToTransform: __, layersPattern: ___, ...rest } = config.toSelection();
  const spec = { ...rest, groups } as GroupedSelection;
  const { compileSelection } = await import("../selection/groups/compile.ts");
  const compiled = compileSelection(tree, spec);
  const {
    targetModules = null,
    excludeModules = null,
    layersToTransform = null,
    layersPattern = null,
    rankPattern = {},
    alphaPattern = {},
    r = config.r,
    loraAlpha = config.loraAlpha,
  } = compiled.config;
  const changes = {
    ...{ targetModules, excludeModules, layersToTransform, layersPattern },
    ...{ rankPattern, alphaPattern, r, loraAlpha },
  } as LoraConfigOptions;
  return { config: config.with(changes), compiled, warnings: [...warnings, ...compiled.warnings] };
}
