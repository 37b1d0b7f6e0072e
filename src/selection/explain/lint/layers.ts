import { nearest } from "../../../errors.ts";
import { type LayerFilter, makeLayerFilter } from "../../peft/layer-filter.ts";
import { quoteEntry, wantedLayers } from "../../peft/reason.ts";
import { leafOf } from "../../python.ts";
import { numberRanges } from "../fold.ts";
import { makeLocator } from "../matrix.ts";
import { alternativesOf } from "./alternatives.ts";
import type { LintContext } from "./context.ts";

/**
 * Layers that do not exist, patterns that name no list, and lists that are counted alike.
 * @param found names that an entry of the targets matches, in whatever layer.
 */
export function lintLayers(context: LintContext, filter: LayerFilter, found: readonly string[]): void {
  const patternsUsed = lintPatterns(context, found);
  if (found.length === 0 || !patternsUsed) return;
  lintIndices(context, filter, found);
  lintStacks(context);
}

function lintIndices(context: LintContext, filter: LayerFilter, found: readonly string[]): void {
  const withMatches = indicesOf(filter, found);
  if (withMatches.size === 0) return;
  const wanted = wantedLayers(context.preparation.config).map((index) =>
    typeof index === "boolean" ? Number(index) : index,
  );
  const missing = wanted.filter((index) => typeof index !== "number" || !withMatches.has(index));
  if (missing.length === 0) return;
  const existing = indicesOf(filter, context.names);
  const shown = numberRanges([...existing]);
  const last = Math.max(...existing);
  const absent = missing.filter((index) => typeof index !== "number" || !existing.has(index));
  if (absent.length > 0) {
    const negative = absent.some((index) => typeof index === "number" && index < 0)
      ? ` PEFT does not count from the end: the last is ${last}.`
      : "";
    const typed = absent.some((index) => typeof index !== "number") ? " Layers must be numbers." : "";
    context.warn(
      "layer-index-unknown",
      `layersToTransform: there is no layer ${absent.map((index) => JSON.stringify(index)).join(", ")}; the layers are ${shown}.${negative}${typed}`,
      { indices: absent, existing: [...existing].sort((a, b) => a - b) },
    );
  }
  const empty = missing.filter((index) => !absent.includes(index)) as number[];
  if (empty.length > 0)
    context.warn(
      "layer-without-targets",
      `layersToTransform: no target module is in layer ${numberRanges(empty)}; they are in ${numberRanges([...withMatches])}.`,
      { indices: empty, layers: [...withMatches].sort((a, b) => a - b) },
    );
}

function indicesOf(filter: LayerFilter, names: readonly string[]): Set<number> {
  const indices = new Set<number>();
  for (const name of names) {
    const hit = filter.find(name);
    if (hit !== undefined) indices.add(hit.index);
  }
  return indices;
}

/** @returns whether any pattern finds an index in the names, or there is none. */
function lintPatterns(context: LintContext, found: readonly string[]): boolean {
  const { config, patterns } = context.preparation;
  const { layersPattern } = config;
  const list =
    typeof layersPattern === "string"
      ? layersPattern === ""
        ? []
        : [layersPattern]
      : [...(layersPattern ?? [])];
  if (list.length === 0) return true;
  let used = false;
  for (const pattern of list) {
    const quoted = quoteEntry(pattern);
    const top = alternativesOf(pattern)?.find(({ parent }) => parent === null);
    if (top !== undefined) {
      context.warn(
        "layers-pattern-alternation",
        `layersPattern: ${quoted} has "|" outside of parentheses, which splits PEFT's whole expression: write "(?:${pattern})", or a list of patterns.`,
        { pattern },
      );
      continue;
    }
    const filter = makeLayerFilter({ ...config, layersPattern: pattern }, patterns)!;
    if (found.some((name) => filter.find(name) !== undefined)) used = true;
    else if (context.names.some((name) => filter.find(name) !== undefined))
      context.warn(
        "layers-pattern-elsewhere",
        `layersPattern: ${quoted} is a list of layers, but nothing that targetModules matches is in it.`,
        { pattern },
      );
    else {
      const lists = [...new Set(context.structure.blocks.map((block) => block.pattern))];
      const close = pattern.length > 200 ? [] : nearest(pattern, [...lists, ...lists.map(leafOf)], 1);
      const hint =
        close.length > 0
          ? `nearest: "${close[0]}"`
          : `lists of this model: ${lists.slice(0, 6).map(quote).join(", ")}`;
      context.warn(
        "layers-pattern-unmatched",
        `layersPattern: ${quoted} names no list of numbered layers (${lists.length === 0 ? "the model has none" : hint}).`,
        { pattern, lists },
      );
    }
  }
  return used;
}

/** Without a pattern every stack is counted alike. */
function lintStacks(context: LintContext): void {
  if (context.preparation.config.layersPattern !== null) return;
  const { stacks } = context.structure;
  if (stacks.length < 2) return;
  const locate = makeLocator(stacks);
  const counts = stacks.map(() => 0);
  for (const name of context.targets) {
    const place = locate(name);
    if (place !== undefined) counts[place.stack]!++;
  }
  const reached = stacks.flatMap(({ path }, index) =>
    counts[index]! > 0 ? [{ path, modules: counts[index]! }] : [],
  );
  if (reached.length < 2) return;
  context.warn(
    "layers-in-several-stacks",
    `layersToTransform counts the layers of ${reached.map(({ path, modules }) => `${path} (${modules})`).join(" and ")} alike. ` +
      "Set layersPattern to choose one of them, or give each its own layers in a selection of groups.",
    { stacks: reached },
  );
}

const quote = (text: string): string => JSON.stringify(text);
