import { partsOf, type Selection } from "../peft/selection.ts";
import { leafOf } from "../python.ts";
import type { NumberedList } from "../structure/index.ts";
import { structureOf } from "../structure/index.ts";
import type { ModuleTree } from "../tree.ts";
import { type Attribution, attributeGroups, attributeSelection, type TakingEntry } from "./attribution.ts";
import { type CompiledLike, isCompiled } from "./compiled.ts";
import { effectiveTree } from "./effective-tree.ts";
import type { Explanation } from "./explanation.ts";

/** What one entry took. */
export type MatrixRow = TakingEntry & {
  readonly total: number;
  /** Counts by stack, then by layer, in the order of `stacks` and their `layers`. */
  readonly counts: readonly (readonly number[])[];
  /** Outside of all stacks. */
  readonly outside: number;
};

/** Which entry took how many modules of which layer. */
export type SelectionMatrix = {
  /** Stacks of layers, such as `model.encoder.layers`, and the numbers of their layers. */
  readonly stacks: readonly { readonly path: string; readonly layers: readonly number[] }[];
  /** One per entry, with zeros for those that took nothing; a regex or "all-linear" has one per last name part. */
  readonly rows: readonly MatrixRow[];
};

/**
 * Counts what each entry of a selection took, by layer. A target that several entries match counts for the first.
 * @param source a selection, or the explanations of all modules, as where PEFT refuses the configuration.
 */
export function matrixOf(
  tree: ModuleTree,
  source: Selection | CompiledLike | readonly Explanation[],
): SelectionMatrix {
  if (Array.isArray(source)) return count(tree, attributeExplanations(source as readonly Explanation[]));
  if (isCompiled(source)) return count(tree, attributeGroups(source));
  const selection = source as Selection;
  return count(effectiveTree(tree, partsOf(selection).preparation), attributeSelection(selection));
}

function count(tree: ModuleTree, attribution: Attribution): SelectionMatrix {
  const { stacks } = structureOf(tree);
  const locate = makeLocator(stacks);
  const rows = attribution.map(({ by, names }): MatrixRow => {
    const counts = stacks.map(({ indices }) => indices.map(() => 0));
    let outside = 0;
    for (const name of names) {
      const place = locate(name);
      if (place === undefined) outside++;
      else counts[place.stack]![place.layer]!++;
    }
    return { ...by, total: names.length, counts, outside };
  });
  return { stacks: stacks.map(({ path, indices }) => ({ path, layers: indices })), rows };
}

/** Positions of a stack and of a layer in it. */
export type StackPlace = { readonly stack: number; readonly layer: number };

/** Finds the stack and the layer of a name. */
export function makeLocator(stacks: readonly NumberedList[]): (name: string) => StackPlace | undefined {
  const known = stacks.map(({ path, indices }) => ({
    prefix: path === "" ? "" : `${path}.`,
    positions: new Map(indices.map((index, position) => [String(index), position])),
  }));
  return (name) => {
    for (let stack = 0; stack < known.length; stack++) {
      const { prefix, positions } = known[stack]!;
      if (!name.startsWith(prefix)) continue;
      const dot = name.indexOf(".", prefix.length);
      const layer = positions.get(name.slice(prefix.length, dot === -1 ? undefined : dot));
      if (layer !== undefined) return { stack, layer };
    }
    return undefined;
  };
}

function attributeExplanations(explanations: readonly Explanation[]): Attribution {
  const rows = new Map<string, { by: TakingEntry; names: string[] }>();
  for (const { name, kind, selected, rule, entry = rule, group } of explanations) {
    if (!selected) continue;
    const part = rule === "regex" || rule === "all-linear" ? leafOf(name) : undefined;
    const option = kind === "parameter" ? "targetParameters" : "targetModules";
    const shown = rule === "all-linear" ? "all-linear" : entry;
    const key = JSON.stringify([option, shown, part, group]);
    const known = rows.get(key);
    if (known !== undefined) known.names.push(name);
    else
      rows.set(key, {
        by: {
          entry: shown,
          option,
          ...(part === undefined ? {} : { part }),
          ...(group === undefined ? {} : { group }),
        },
        names: [name],
      });
  }
  return [...rows.values()];
}
