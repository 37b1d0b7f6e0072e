import { failure, type Warnings } from "../failure.ts";
import { compareCodePoints, leafOf, parentOf, regexEscape } from "../python.ts";
import type { ModuleTree } from "../tree.ts";
import { embeddingLayerNames } from "./defaults.ts";
import type { LiveModule, LiveParameter } from "./live.ts";
import type { ResolvedConfig } from "./options.ts";
import { matchesPart, type Patterns } from "./patterns.ts";
import { eachParameter, getSubmodule, namedModules, nameOfModule } from "./traverse.ts";

/**
 * Notices that a layer with tied weights is adapted or saved, and with `ensureWeightTying` rewrites the
 * configuration so that the input embedding is adapted (or saved) and the layers tied to it follow.
 * Source: PEFT 0.21 `BaseTuner._check_tied_modules` and LoraModel's `_add_…_to_tie`.
 */
export function checkTying(
  config: ResolvedConfig,
  tree: ModuleTree,
  root: LiveModule,
  patterns: Patterns,
  warnings: Warnings,
): void {
  const isKnown = (name: string): boolean => embeddingLayerNames.includes(leafOf(name));
  const savesOne = [...(config.modulesToSave ?? [])].some(isKnown);
  const { targetModules } = config;
  const targetsOne =
    typeof targetModules === "string"
      ? embeddingLayerNames.some(
          (name) => patterns.get(targetModules, "targetModules").fullmatch(name) !== null,
        )
      : [...(targetModules ?? [])].some(isKnown);
  const tied = namesTiedWithEmbedding(tree, root);
  if (!config.ensureWeightTying) {
    if ((savesOne || targetsOne) && tied.length > 0)
      warnings.add(
        "tied-layer-adapted",
        `The weights of the input embedding and ${tied.join(", ")} are tied, and one of them is adapted or saved, ` +
          "which unties them. Set ensureWeightTying to keep them together.",
      );
  } else if (tied.length === 0)
    warnings.add(
      "tying-requested-no-tied-modules",
      "ensureWeightTying is set, but the model ties no weights.",
    );
  else if (savesOne) tieSaved(config, tree, root, tied, patterns);
  else if (targetsOne) tieTargets(config, tree, root, tied, patterns);
  else
    warnings.add(
      "tying-requested-nothing-to-tie",
      "ensureWeightTying is set, but neither targetModules nor modulesToSave names embed_tokens or lm_head.",
    );
}

function tieSaved(
  config: ResolvedConfig,
  tree: ModuleTree,
  root: LiveModule,
  tied: readonly string[],
  patterns: Patterns,
): void {
  config.modulesToTie = [...tied];
  const entries = [...config.modulesToSave!];
  const embedding = inputEmbeddingName(tree, root);
  // Python can append to a list only, and remove from a list or a set
  let needs: "list" | "set" | null = null;
  if (!entries.includes(embedding)) {
    needs = "list";
    entries.push(embedding);
  }
  for (const name of tied) {
    const match = entries.find((entry) => matchesPart(patterns, entry, name, "modulesToSave"));
    if (match === undefined) continue;
    needs ??= "set";
    entries.splice(entries.indexOf(match), 1);
  }
  const given = config.modulesToSave;
  if (needs !== null && !Array.isArray(given) && !(needs === "set" && given instanceof Set))
    throw failure(
      "inject",
      "AttributeError",
      "python-internal",
      "With ensureWeightTying, modulesToSave must be a list, so that tied modules can be added and removed.",
    );
  if (needs !== null) config.modulesToSave = given instanceof Set ? new Set(entries) : entries;
}

function tieTargets(
  config: ResolvedConfig,
  tree: ModuleTree,
  root: LiveModule,
  tied: readonly string[],
  patterns: Patterns,
): void {
  config.targetModulesToTie = [...tied];
  const embedding = inputEmbeddingName(tree, root);
  if (typeof config.targetModules === "string") {
    config.targetModules = `(?:${config.targetModules}|^${regexEscape(embedding)}$)`;
    return;
  }
  const targets = new Set(config.targetModules ?? []).add(embedding);
  for (const name of tied) {
    const match = [...targets].find((entry) => matchesPart(patterns, entry, name, "targetModules"));
    if (match !== undefined) targets.delete(match);
  }
  config.targetModules = targets;
}

/**
 * The module that `get_input_embeddings()` returns now, perhaps a wrapper.
 * @throws SelectionError `no-input-embedding` where the model has none.
 */
export function inputEmbedding(tree: ModuleTree, root: LiveModule): LiveModule {
  const module = tree.inputEmbeddings === null ? undefined : getSubmodule(root, tree.inputEmbeddings);
  if (module === undefined)
    throw failure(
      "inject",
      "NotImplementedError",
      "no-input-embedding",
      `${tree.className} does not say which module is its input embedding. Name the module instead of relying on it.`,
    );
  return module;
}

const inputEmbeddingName = (tree: ModuleTree, root: LiveModule): string =>
  nameOfModule(root, inputEmbedding(tree, root)) ?? "";

/** Is the module tied by name? Compares as targets are: whole name or dotted tail. */
export const isTiedName = (tied: readonly string[] | null, name: string): boolean =>
  tied?.some((entry) => name === entry || name.endsWith(`.${entry}`)) ?? false;

/**
 * Paths of the modules that share the input embedding's weight, as they are called in the model as it is now: a
 * layer that is wrapped already is listed by its place inside the wrapper.
 * Source: PEFT 0.21 `_get_module_names_tied_with_embedding`.
 */
export function namesTiedWithEmbedding(tree: ModuleTree, root: LiveModule): string[] {
  if (tree.config.tieWordEmbeddings === false) return [];
  if (tree.tiedLookupError !== undefined) {
    const [type, message] = tree.tiedLookupError;
    const code = message.includes("get_input_embeddings") ? "no-input-embedding" : "other";
    throw failure("inject", type, code, `The model cannot say which weights are tied: ${message}`);
  }
  if (tree.tiedWithEmbedding.length === 0) return [];
  const parameters = new Set<LiveParameter>();
  eachParameter(inputEmbedding(tree, root), (parameter) => parameters.add(parameter));
  const current = new Map<string, string>();
  const candidates: string[] = [];
  for (const { name, module } of namedModules(root, { duplicates: true }))
    for (const [own, parameter] of module.parameters)
      if (parameters.has(parameter)) candidates.push(name === "" ? own : `${name}.${own}`);
  for (const path of candidates) current.set(path.replace(/[^.]+\.base_layer\./g, ""), path);
  for (const path of candidates) current.set(path.replaceAll("base_layer.", ""), path);
  const source = `${tree.inputEmbeddings}.weight`;
  if (!candidates.includes(current.get(source) ?? source)) return [];
  const paths = tree.tiedWithEmbedding.map((name) => `${name}.weight`);
  return [...new Set(paths.map((path) => parentOf(current.get(path) ?? path)))].sort(compareCodePoints);
}
