import { Warnings } from "../failure.ts";
import { leafOf } from "../python.ts";
import type { ModuleTree, NamedShape } from "../tree.ts";
import { embeddingLayerNames } from "./defaults.ts";
import { type LiveModule, LoraModule, SavedWrapper, TokenWrapper } from "./live.ts";
import type { ResolvedConfig } from "./options.ts";
import type { Patterns } from "./patterns.ts";
import type { Target } from "./target.ts";
import { namedModules, type Visit } from "./traverse.ts";

/** What the wrappers add in front of a module's name. */
const PREFIX = "base_model.model.";

/** What PEFT writes to adapter_model.safetensors. */
export type AdapterTensors = { readonly tensors: NamedShape[]; readonly warnings: Warnings };

/** The embedding layers as the model hands them out; null where it has none. */
export type Embeddings = { readonly input: () => LiveModule; readonly output: () => LiveModule | null };

/**
 * Keys and shapes of the adapter's saved tensors, in PEFT's order: LoRA, biases, saved modules and tokens, embeddings.
 * @param peftModel the wrapped model, whose names start with `base_model.model.`.
 * Source: PEFT 0.21 `get_peft_model_state_dict`.
 */
export function adapterTensors(
  peftModel: LiveModule,
  config: ResolvedConfig,
  embeddings: Embeddings,
  patterns: Patterns,
): AdapterTensors {
  const warnings = new Warnings();
  const visits = namedModules(peftModel, { duplicates: true });
  const all = visits.flatMap(ownTensors);
  const kept = new Map<string, readonly number[]>();
  const prefixes = loraPrefixes(visits);
  for (const [key, shape] of all) if (isUnder(key, prefixes)) kept.set(withoutDoraWeight(key, config), shape);
  addBiases(kept, all, visits, config);
  addWrapped(kept, visits);
  addEmbeddings(kept, all, visits, config, embeddings, patterns, warnings);
  const saved = new Map<string, readonly number[]>();
  for (const [key, shape] of kept) saved.set(withoutAdapterName(key), shape);
  const tensors = [...saved];
  warnAboutShapes(tensors, warnings);
  return { tensors, warnings };
}

/**
 * The same where nothing but LoRA layers, none inside another, changed the model: read off the targets, without walking
 * the model. For large models that is most of the time.
 * @returns undefined where the model has to be walked.
 */
export function plainAdapterTensors(
  tree: ModuleTree,
  targets: readonly Target[],
  config: ResolvedConfig,
  patterns: Patterns,
): AdapterTensors | undefined {
  const isPlain =
    config.bias === "none" &&
    config.modulesToSave === null &&
    config.trainableTokenIndices === null &&
    config.targetModulesToTie === null &&
    (config.layerReplication === null || config.layerReplication.length === 0) &&
    tree.duplicateModules.length === 0 &&
    !targetsEmbedding(tree.modules, config, patterns, "");
  if (!isPlain) return undefined;
  const { modules } = tree;
  const tensors: NamedShape[] = [];
  let next = 0;
  for (let i = 0; i < modules.length && next < targets.length; i++) {
    const { name } = modules[i]!;
    const target = targets[next]!;
    if (target.name !== name) continue;
    next++;
    if (modules[i + 1]?.name.startsWith(`${name}.`)) return undefined;
    for (const [key, shape] of target.tensors) tensors.push([`${PREFIX}${name}.${key}`, shape]);
  }
  if (next < targets.length) return undefined;
  const warnings = new Warnings();
  warnAboutShapes(tensors, warnings);
  return { tensors, warnings };
}

/** Parameters, then saved buffers, of one module. */
function ownTensors({ name, module }: Visit): NamedShape[] {
  const prefix = name === "" ? "" : `${name}.`;
  const tensors: NamedShape[] = [];
  for (const [own, { shape }] of module.parameters) tensors.push([prefix + own, shape]);
  for (const [own, shape] of module.buffers) tensors.push([prefix + own, shape]);
  return tensors;
}

/** Everything on a LoRA layer but its base layer belongs to the adapter; saved modules are handled on their own. */
function loraPrefixes(visits: readonly Visit[]): Set<string> {
  const prefixes = new Set<string>();
  const wrappers = new Set<string>();
  for (const { name, module, isFirst } of visits) {
    if (!isFirst) continue;
    if (module instanceof SavedWrapper || module instanceof TokenWrapper) wrappers.add(name);
    else if (module instanceof LoraModule && !isUnder(name, wrappers))
      for (const child of module.children.keys())
        if (child !== "base_layer") prefixes.add(`${name}.${child}`);
  }
  return prefixes;
}

function isUnder(key: string, prefixes: ReadonlySet<string>): boolean {
  if (prefixes.size === 0) return false;
  for (let end = key.length; end > 0; end = key.lastIndexOf(".", end - 1))
    if (prefixes.has(key.slice(0, end))) return true;
  return false;
}

/** DoRA's magnitude was a bare parameter once, and is saved as one. */
const withoutDoraWeight = (key: string, { useDora }: ResolvedConfig): string =>
  useDora && key.endsWith("lora_magnitude_vector.default.weight") ? key.slice(0, -".weight".length) : key;

function addBiases(
  kept: Map<string, readonly number[]>,
  all: readonly NamedShape[],
  visits: readonly Visit[],
  { bias }: ResolvedConfig,
): void {
  if (bias === "all") {
    for (const [key, shape] of all) if (key === "bias" || key.endsWith(".bias")) kept.set(key, shape);
  } else if (bias.endsWith("_only")) {
    const shapes = new Map(all);
    for (const { name, module, isFirst } of visits) {
      if (!isFirst || !(module instanceof LoraModule || module.kind === "token-layer")) continue;
      const key = `${name}.base_layer.bias`;
      const shape = shapes.get(key);
      if (shape !== undefined) kept.set(key, shape);
    }
  }
}

function addWrapped(kept: Map<string, readonly number[]>, visits: readonly Visit[]): void {
  for (const { name, module, isFirst } of visits) {
    if (!isFirst) continue;
    if (module instanceof SavedWrapper)
      for (const visit of namedModules(module.copy, { duplicates: true }))
        for (const [key, shape] of ownTensors(visit)) kept.set(`${name}.${key}`, shape);
    else if (module instanceof TokenWrapper && !module.isTied) {
      const delta = module.layer.children.get("trainable_tokens_delta")!.parameters.get("default")!;
      kept.set(`${name}.token_adapter.trainable_tokens_delta`, delta.shape);
    }
  }
}

/** Adapted embeddings are saved whole as well, if PEFT recognises them by the entries of `targetModules`. */
function addEmbeddings(
  kept: Map<string, readonly number[]>,
  all: readonly NamedShape[],
  visits: readonly Visit[],
  config: ResolvedConfig,
  embeddings: Embeddings,
  patterns: Patterns,
  warnings: Warnings,
): void {
  if (config.trainableTokenIndices !== null) return;
  const listed = visits.filter(({ isFirst }) => isFirst);
  if (!targetsEmbedding(listed, config, patterns, PREFIX)) return;
  warnings.add(
    "embedding-layers-saved",
    "targetModules names embed_tokens or lm_head, so their base weights are saved with the adapter.",
  );
  for (const layer of [embeddings.input(), embeddings.output()]) {
    const base = layer?.attribute("base_layer");
    const found = visits.find(({ module, isFirst }) => isFirst && module === base);
    if (found === undefined || !(found.module.kind === "embedding" || found.module.kind === "linear"))
      continue;
    for (const [key, shape] of all) if (key.startsWith(`${found.name}.`)) kept.set(key, shape);
  }
}

function targetsEmbedding(
  modules: readonly { readonly name: string }[],
  config: ResolvedConfig,
  patterns: Patterns,
  prefix: string,
): boolean {
  const { targetModules } = config;
  if (targetModules === null || targetModules === "all-linear") return false;
  if (typeof targetModules !== "string") {
    const names = new Set(targetModules);
    return embeddingLayerNames.some((name) => names.has(name));
  }
  const regex = patterns.get(targetModules, "targetModules");
  return modules.some(
    ({ name }) =>
      name.startsWith(prefix) &&
      embeddingLayerNames.includes(leafOf(name)) &&
      regex.fullmatch(name.slice(prefix.length)) !== null,
  );
}

/** PEFT saves without the adapter's name: at the end, or before the last part. */
function withoutAdapterName(key: string): string {
  if (!key.includes(".")) return key;
  if (key.endsWith(".default")) return key.slice(0, -".default".length);
  const dot = key.lastIndexOf(".");
  const head = key.slice(0, dot);
  return head.endsWith(".default") ? head.slice(0, -".default".length) + key.slice(dot) : key;
}

function warnAboutShapes(saved: readonly NamedShape[], warnings: Warnings): void {
  const bad = saved.filter(
    ([key, shape]) =>
      (key.includes(".lora_A") || key.includes(".lora_B")) && (shape.length < 2 || shape.includes(0)),
  );
  if (bad.length === 0) return;
  warnings.add(
    "invalid-tensor-shapes",
    `${bad.length} LoRA tensors are not matrices, "${bad[0]![0]}" first; PEFT warns about them when saving (bias ` +
      "vectors of loraBias are meant to be that way).",
    "PeftWarning",
  );
}
