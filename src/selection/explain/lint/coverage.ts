import { leafOf } from "../../python.ts";
import type { Attribution } from "../attribution.ts";
import { numberRanges } from "../fold.ts";
import { makeLocator } from "../matrix.ts";
import { firstNumber, type LintContext, numberAt } from "./context.ts";

/** What a stack of layers works on. */
type Modality = "vision" | "audio" | "language";

/**
 * Told by the words of a path, as in `model.vision_tower.blocks` or `audio_encoder.layers`; what says neither is taken
 * for language. So the encoder and the decoder of one kind of model, such as BART, T5 or Whisper, are alike, and an
 * entry that matches in both is the usual wish.
 */
export function modalityOf(path: string): Modality {
  if (/(vision|visual|image|video|vit\b|patch|pixel)/i.test(path)) return "vision";
  if (/(audio|speech|acoustic|sound)/i.test(path)) return "audio";
  return "language";
}

/** Entries that match in towers of different kinds, vision and language for instance. */
export function lintTowers(context: LintContext, attribution: Attribution): void {
  // most models have one kind of tower, and their structure need not be found
  if (![...context.layerLists.keys()].some((path) => modalityOf(path) !== "language")) return;
  const { stacks } = context.structure;
  const modalities = stacks.map(({ path }) => modalityOf(path));
  if (new Set(modalities).size < 2) return;
  const locate = makeLocator(stacks);
  const totals = stacks.map(() => 0);
  const entries = new Set<string>();
  for (const { by, names } of attribution) {
    if (by.option !== "targetModules") continue;
    const counts = stacks.map(() => 0);
    for (const name of names) {
      const place = locate(name);
      if (place !== undefined) counts[place.stack]!++;
    }
    const reached = new Set(modalities.filter((_, index) => counts[index]! > 0));
    if (reached.size < 2) continue;
    entries.add(by.entry);
    counts.forEach((count, index) => {
      totals[index]! += count;
    });
  }
  if (entries.size === 0) return;
  const towers = stacks.flatMap(({ path }, index) =>
    totals[index]! > 0 ? [{ path, kind: modalities[index]!, modules: totals[index]! }] : [],
  );
  const shown = [...entries]
    .map((entry) => (entry === "all-linear" ? entry : JSON.stringify(entry)))
    .join(", ");
  const [foreign] = towers.filter(({ kind }) => kind !== "language");
  const telling = foreign!.path.split(".").find((part) => modalityOf(part) !== "language");
  context.warn(
    "several-towers",
    `${shown} ${entries.size === 1 ? "matches" : "match"} in towers of different kinds: ` +
      `${towers.map(({ path, kind, modules }) => `${path} (${kind}, ${modules})`).join(", ")}. ` +
      `If only one is meant, exclude the other: excludeModules ".*${telling}\\..*".`,
    { entries: [...entries], towers },
  );
}

/** Output heads by their usual names. */
const heads = new Set(["lm_head", "score", "classifier", "qa_outputs", "classification_head", "embed_out"]);

/** Heads that all-linear adapts: it leaves out the output embedding only. */
export function lintHeads(context: LintContext): void {
  if (!context.preparation.steps.isAllLinear) return;
  const found = context.targets.filter(
    (name) => numberAt(name) === -1 && (heads.has(name.split(".")[0]!) || heads.has(leafOf(name))),
  );
  if (found.length === 0) return;
  context.warn(
    "all-linear-includes-head",
    `all-linear also adapts ${found.map((name) => JSON.stringify(name)).join(", ")}, which looks like an output head. A new head should be ` +
      "trained as a whole (modulesToSave, or taskType); another one can be left out with excludeModules.",
    { modules: found },
  );
}

/** The share of a stack's layers without adapters from which it is worth a word. */
const worthMentioning = 0.25;

/**
 * Layers of a hybrid stack that hold no adapter because they are of another kind: Mamba or MLP layers between attention
 * layers. A choice of layers by number is nobody's mistake: where it leaves out some layers of a kind, nothing is said.
 */
export function lintHybrids(context: LintContext): void {
  const { targets, tree } = context;
  if (targets.length === 0) return;
  const { layerLists } = context;
  const stacks = new Map(
    [...layerLists].map(([path, indices]) => [
      path,
      new Map(
        indices.map((index): [number, LayerKind] => [
          index,
          { index, isAdapted: false, hash: 0, leaves: new Set() },
        ]),
      ),
    ]),
  );
  const layerOf = (name: string): LayerKind | undefined => {
    const place = firstNumber(name);
    return place && stacks.get(place.path)?.get(place.index);
  };
  for (const { name } of [
    ...(context.selection?.targets ?? []),
    ...(context.selection?.targetParameters ?? []),
  ]) {
    const layer = layerOf(name);
    if (layer !== undefined) layer.isAdapted = true;
  }
  for (const [path, layers] of stacks) {
    const all = [...layers.values()];
    if (all.every(({ isAdapted }) => isAdapted) || !all.some(({ isAdapted }) => isAdapted)) continue;
    for (const { name, kind } of tree.modules) {
      if (!name.startsWith(`${path}.`)) continue;
      const layer = layerOf(name);
      if (layer === undefined) continue;
      layer.hash = hash(layer.hash, name, path.length + 1 + String(layer.index).length);
      if (kind === "linear" || kind === "conv1d_hf") layer.leaves.add(leafOf(name));
    }
    describeStack(context, path, all);
  }
}

/** A layer of an outermost numbered list. */
type LayerKind = { readonly index: number; isAdapted: boolean; hash: number; readonly leaves: Set<string> };

function describeStack(context: LintContext, path: string, layers: readonly LayerKind[]): void {
  const byKind = new Map<number, LayerKind[]>();
  for (const layer of layers) {
    const known = byKind.get(layer.hash);
    if (known === undefined) byKind.set(layer.hash, [layer]);
    else known.push(layer);
  }
  const groups = [...byKind.values()];
  const full = groups.filter((group) => group.every(({ isAdapted }) => isAdapted));
  const none = groups.filter((group) => group.every(({ isAdapted }) => !isAdapted));
  // layers of one kind that differ were told apart on purpose
  if (full.length + none.length < groups.length || full.length === 0) return;
  const known = new Set(full.flatMap(([layer]) => [...layer!.leaves]));
  const left = none.flat().map(({ index }) => index);
  const own = new Set(none.flatMap(([layer]) => [...layer!.leaves]).filter((leaf) => !known.has(leaf)));
  if (left.length < worthMentioning * layers.length || own.size === 0) return;
  const share = Math.round((100 * (layers.length - left.length)) / layers.length);
  context.warn(
    "layer-kinds-without-adapters",
    `${path}: only ${layers.length - left.length} of ${layers.length} layers (${share} %) hold an adapter. Layers ` +
      `${numberRanges(left)} are of another kind; their linear layers are called ${[...own].join(", ")}.`,
    { stack: path, layers: left.sort((a, b) => a - b), share: share / 100, modules: [...own] },
  );
}

/** FNV-1a over the end of a text. */
function hash(seed: number, text: string, start: number): number {
  let value = (seed ^ 0x811c9dc5) | 0;
  for (let i = start; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return value;
}
