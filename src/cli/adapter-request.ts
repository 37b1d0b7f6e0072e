import { stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { type ConfigWarning, LoraConfig } from "../adapters/config.ts";
import type { LoraConfigOptions } from "../adapters/config-options.ts";
import type { ConfigProblem } from "../adapters/config-problems.ts";
import { CONFIG_FILE } from "../adapters/files.ts";
import type { SelectionFile } from "../adapters/selection-file.ts";
import { AdapterError } from "../errors.ts";
import {
  type CompiledSelection,
  type GroupedSelection,
  type GroupSpec,
  type GroupWarning,
  type LayersSpec,
  type ModuleTree,
  parseEntry,
} from "../selection/index.ts";
import type { LoraFlagValues } from "./adapter-flags.ts";
import { throwProblems } from "./errors.ts";
import { flagName } from "./flags.ts";

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
