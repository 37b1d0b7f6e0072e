import { mambaForbiddenLeaves, mambaModelTypes } from "./defaults.ts";
import { failure, type Warnings } from "./failure.ts";
import { type LiveModule, LoraModule } from "./live.ts";
import { createLora, type LoraRequest } from "./lora-layer.ts";
import { makeMatcher } from "./match.ts";
import type { Outcome } from "./no-match.ts";
import { isTruthy, type ResolvedConfig } from "./options.ts";
import { createParameterLora, eachTargetedParameter } from "./parameters.ts";
import { PatternLookup, type Patterns } from "./patterns.ts";
import { leafOf, parentOf } from "./python.ts";
import type { TargetReason } from "./reason.ts";
import { getSubmodule, type NamedModule } from "./traverse.ts";
import type { ModuleTree } from "./tree.ts";
import { inputEmbedding, isTiedName } from "./tying.ts";

/** One LoRA layer that was put in place. */
export type Injected = { readonly name: string; readonly lora: LoraModule; readonly reason: TargetReason };

export type Injection = Outcome & {
  /** Modules in order; tied ones last. */
  readonly modules: readonly Injected[];
  readonly parameters: readonly Injected[];
  readonly ranks: PatternLookup;
  readonly alphas: PatternLookup;
};

/**
 * Wraps every matching module in the order of `modules`, then the targeted parameters, then tied modules.
 * @throws SelectionError at the first match that cannot be wrapped.
 * Source: PEFT 0.21 `BaseTuner.inject_adapter`, `LoraModel._create_and_replace`.
 */
export function injectLora(
  config: ResolvedConfig,
  tree: ModuleTree,
  root: LiveModule,
  modules: readonly NamedModule[],
  patterns: Patterns,
  warnings: Warnings,
): Injection {
  const ranks = new PatternLookup(patterns, config.rankPattern, "rankPattern");
  const alphas = new PatternLookup(patterns, config.alphaPattern, "alphaPattern");
  const match = makeMatcher(config, patterns);
  const places = new Places(root, modules);
  const request = (name: string, leaf: string): LoraRequest => {
    const r = ranks.find(name, config.r).value;
    const alpha = alphas.find(name, config.loraAlpha).value;
    const isTied = config.targetModulesToTie?.includes(leaf) ?? false;
    const base = { name, r, alpha, config, warnings };
    return isTied ? { ...base, tiedTo: adaptedEmbedding(tree, root) } : base;
  };
  const wrapModule = (name: string, reason: TargetReason): Injected => {
    const leaf = leafOf(name);
    const { parent, target } = places.find(name);
    refuseMamba(tree, leaf, name);
    const lora = createLora(target, request(name, leaf));
    places.replace(parent, leaf, lora);
    return { name, lora, reason };
  };

  const injected: Injected[] = [];
  const excluded: string[] = [];
  const unmatched: string[] = [];
  const postponed: string[] = [];
  for (const { name } of modules) {
    if (name === "") continue;
    const result = match(name);
    if (isTiedName(config.targetModulesToTie, name)) postponed.push(name);
    else if (result.status === "matched") injected.push(wrapModule(name, result));
    else (result.status === "excluded" ? excluded : unmatched).push(name);
  }

  const parameters: Injected[] = [];
  if (isTruthy(config.targetParameters))
    eachTargetedParameter(root, config.targetParameters!, ({ moduleName, key, entry }) => {
      const holder = leafOf(moduleName);
      const { parent, target } = new Places(root, null).find(moduleName);
      refuseMamba(tree, holder, key);
      const lora = createParameterLora(target, leafOf(key), request(key, holder));
      parent.setChild(holder, lora);
      parameters.push({ name: key, lora, reason: { status: "matched", rule: "parameter", entry } });
    });

  const embedding = tree.inputEmbeddings ?? "";
  for (const name of postponed)
    injected.push(wrapModule(name, { status: "matched", rule: "tied", entry: embedding }));
  return { modules: injected, parameters, excluded, unmatched, ranks, alphas };
}

/** Finds modules and their parents by name: at once while nothing with children was wrapped, else through wrappers. */
class Places {
  readonly #root: LiveModule;
  readonly #byName: Map<string, LiveModule> | null;
  #hasNested: boolean;

  constructor(root: LiveModule, modules: readonly NamedModule[] | null) {
    this.#root = root;
    this.#hasNested = modules === null;
    this.#byName = modules === null ? null : new Map(modules.map(({ name, module }) => [name, module]));
  }

  find(name: string): { parent: LiveModule; target: LiveModule } {
    const parentName = parentOf(name);
    const parent = this.#lookUp(parentName);
    const target = this.#lookUp(name);
    if (parent === undefined || target === undefined)
      throw failure(
        "inject",
        "AttributeError",
        "python-internal",
        `"${name}" is inside a module that is adapted itself. Target only one of the two.`,
        { module: name },
      );
    return { parent, target };
  }

  replace(parent: LiveModule, leaf: string, lora: LoraModule): void {
    parent.setChild(leaf, lora);
    if (lora.base.children.size > 0) this.#hasNested = true;
  }

  #lookUp(name: string): LiveModule | undefined {
    const isDirect = !this.#hasNested && this.#byName !== null;
    return (isDirect ? this.#byName!.get(name) : undefined) ?? getSubmodule(this.#root, name);
  }
}

function adaptedEmbedding(tree: ModuleTree, root: LiveModule): LoraModule {
  const embedding = inputEmbedding(tree, root);
  if (embedding instanceof LoraModule) return embedding;
  throw failure(
    "inject",
    "AttributeError",
    "python-internal",
    `A tied layer follows the input embedding "${tree.inputEmbeddings}", which is not adapted. ` +
      "Do not exclude the embedding, or set ensureWeightTying to false.",
  );
}

function refuseMamba(tree: ModuleTree, leaf: string, name: string): void {
  if (!mambaModelTypes.has(tree.modelType) || !mambaForbiddenLeaves.has(leaf)) return;
  throw failure(
    "inject",
    "ValueError",
    "mamba-incompatible",
    `"${name}" cannot be adapted: Mamba's fused kernels read ${[...mambaForbiddenLeaves].join(" and ")} directly. ` +
      `Remove "${leaf}" from the targets, or exclude it.`,
    { module: name },
  );
}
