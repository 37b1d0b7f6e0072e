import { SelectionError } from "../../errors.ts";
import { failure, Warnings } from "../failure.ts";
import { leafOf, parentOf } from "../python.ts";
import type { ModuleTree } from "../tree.ts";
import { mambaForbiddenLeaves, mambaModelTypes } from "./defaults.ts";
import { type LiveModule, LoraModule } from "./live.ts";
import { createLora } from "./lora-layer.ts";
import type { LoraPlan, LoraRequest } from "./lora-plan.ts";
import { makeMatcher } from "./match.ts";
import type { Outcome } from "./no-match.ts";
import { isTruthy, type ResolvedConfig } from "./options.ts";
import { createParameterLora, eachTargetedParameter } from "./parameters.ts";
import { PatternLookup, type Patterns } from "./patterns.ts";
import type { Preparation } from "./prepare.ts";
import type { TargetReason } from "./reason.ts";
import { Target } from "./target.ts";
import { getSubmodule } from "./traverse.ts";
import { inputEmbedding, isTiedName } from "./tying.ts";

export type Injection = Outcome & {
  /** Modules in order; tied ones last. */
  readonly modules: readonly Target[];
  readonly parameters: readonly Target[];
  /** Numbers of adapter parameters: all, and the trained ones. */
  readonly size: number;
  readonly trained: number;
  readonly ranks: PatternLookup;
  readonly alphas: PatternLookup;
};

/**
 * Wraps every matching module in the order of `modules`, then the targeted parameters, then tied modules.
 * @throws SelectionError at the first match that cannot be wrapped.
 * Source: PEFT 0.21 `BaseTuner.inject_adapter`, `LoraModel._create_and_replace`.
 */
export function injectLora(
  { config, patterns, live: { root }, modules }: Preparation,
  tree: ModuleTree,
  warnings: Warnings,
): Injection {
  const { ranks, alphas, requestFor } = makeRequests(config, patterns, warnings);
  const match = makeMatcher(config, patterns);
  const request = (name: string, leaf: string): LoraRequest => {
    const isTied = config.targetModulesToTie?.includes(leaf) ?? false;
    return requestFor(name, () => (isTied ? adaptedEmbedding(tree, root) : null));
  };
  let size = 0;
  let trained = 0;
  const describe = (name: string, { plan }: LoraModule, reason: TargetReason): Target => {
    size += plan.size;
    trained += plan.trained;
    return new Target(name, plan, reason, config);
  };
  // a wrapped module with children hides them, so from then on modules are looked up through the wrappers
  let hidesChildren = false;
  const wrapAt = (index: number, reason: TargetReason, isLive = hidesChildren): Target => {
    const name = modules.names[index]!;
    const leaf = leafOf(name);
    const { parent, module } = isLive ? place(root, name) : { parent: null, module: modules.moduleAt(index) };
    refuseMamba(tree, leaf, name);
    const lora = createLora(module, request(name, leaf));
    if (parent === null) modules.replace(index, lora);
    else parent.setChild(leaf, lora);
    if (module.children.size > 0) hidesChildren = true;
    return describe(name, lora, reason);
  };

  const injected: Target[] = [];
  const excluded: string[] = [];
  const unmatched: string[] = [];
  const postponed: number[] = [];
  modules.names.forEach((name, index) => {
    if (name === "") return;
    const result = match(name);
    if (isTiedName(config.targetModulesToTie, name)) postponed.push(index);
    else if (result.status === "matched") injected.push(wrapAt(index, result));
    else (result.status === "excluded" ? excluded : unmatched).push(name);
  });

  const parameters: Target[] = [];
  if (isTruthy(config.targetParameters))
    eachTargetedParameter(root, config.targetParameters!, ({ moduleName, key, entry }) => {
      const holder = leafOf(moduleName);
      const { parent, module } = place(root, moduleName);
      refuseMamba(tree, holder, key);
      const lora = createParameterLora(module, leafOf(key), request(key, holder));
      parent.setChild(holder, lora);
      parameters.push(describe(key, lora, { status: "matched", rule: "parameter", entry }));
    });

  const embedding = tree.inputEmbeddings ?? "";
  for (const index of postponed)
    injected.push(wrapAt(index, { status: "matched", rule: "tied", entry: embedding }, true));
  return { modules: injected, parameters, excluded, unmatched, size, trained, ranks, alphas };
}

/** What a LoRA layer is made of, by name. */
function makeRequests(config: ResolvedConfig, patterns: Patterns, warnings: Warnings) {
  const ranks = new PatternLookup(patterns, config.rankPattern, "rankPattern");
  const alphas = new PatternLookup(patterns, config.alphaPattern, "alphaPattern");
  const plans = new Map<string, LoraPlan>();
  const requestFor = (name: string, follow: () => LoraModule | null = () => null): LoraRequest => {
    const r = ranks.valueFor(name, config.r);
    const alpha = alphas.valueFor(name, config.loraAlpha);
    return { name, r, alpha, config, warnings, tiedTo: follow(), plans };
  };
  return { ranks, alphas, requestFor };
}

/**
 * Of modules that are matched, those that cannot be adapted, each with the error that it causes; the injection stops at
 * the first. Nothing is put into the model, so a module inside another target is not noticed.
 * @param indices positions in the listing of `preparation`, which must not have been used for an injection.
 */
export function targetProblems(
  { config: given, patterns, modules }: Preparation,
  tree: ModuleTree,
  indices: Iterable<number>,
): Map<string, SelectionError> {
  const config = { ...given };
  const problems = new Map<string, SelectionError>();
  const { requestFor } = makeRequests(config, patterns, new Warnings());
  for (const index of indices) {
    const name = modules.names[index]!;
    try {
      refuseMamba(tree, leafOf(name), name);
      createLora(modules.moduleAt(index), requestFor(name));
    } catch (error) {
      if (!(error instanceof SelectionError)) throw error;
      problems.set(name, error);
    }
  }
  return problems;
}

/** Looks a module and its parent up in the model as it is now, through wrappers. */
function place(root: LiveModule, name: string): { parent: LiveModule; module: LiveModule } {
  const parent = getSubmodule(root, parentOf(name));
  const module = getSubmodule(root, name);
  if (parent !== undefined && module !== undefined) return { parent, module };
  throw failure(
    "inject",
    "AttributeError",
    "other",
    `"${name}" is inside a module that is adapted itself. Target only one of the two.`,
    { module: name },
  );
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
