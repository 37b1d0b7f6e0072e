import { SelectionError } from "../../errors.ts";
import type { SelectionConfig } from "../peft/options.ts";
import { selectTargets } from "../peft/select.ts";
import { partsOf, Selection } from "../peft/selection.ts";
import { structureOf } from "../structure/index.ts";
import type { ModuleTree } from "../tree.ts";
import { type CompiledLike, isCompiled } from "./compiled.ts";
import { effectiveTree } from "./effective-tree.ts";
import { foldNames } from "./fold.ts";

/** The values of one target. */
export type TargetValues = {
  readonly r: number;
  readonly alpha: number;
  readonly scaling: number;
  readonly parameters: number;
};

export type DifferingTarget = TargetValues & { readonly name: string };

/** What two selections on one model select differently. */
export type SelectionDiff = {
  readonly onlyA: readonly DifferingTarget[];
  readonly onlyB: readonly DifferingTarget[];
  /** In both, with another rank, alpha or scaling. */
  readonly changed: readonly { readonly name: string; readonly a: TargetValues; readonly b: TargetValues }[];
  /** Number of targets that are in both with the same values. */
  readonly same: number;
  readonly modulesToSave: { readonly onlyA: readonly string[]; readonly onlyB: readonly string[] };
  readonly tokenModules: { readonly onlyA: readonly string[]; readonly onlyB: readonly string[] };
  readonly trainableParameters: { readonly a: number; readonly b: number };
  readonly isEmpty: boolean;
  /** The same in words, folded over layers; one line each. */
  readonly lines: readonly string[];
};

type Side = SelectionConfig | Selection | CompiledLike;

/**
 * Compares what two configurations select on a model: modules, parameters, their ranks and alphas, what is saved.
 * @throws SelectionError where one of them cannot be applied; `details.side` is "a" or "b".
 */
export function diffSelections(tree: ModuleTree, a: Side, b: Side): SelectionDiff {
  const left = resolve(tree, a, "a");
  const right = resolve(tree, b, "b");
  const values = new Map(targetsOf(right).map((target) => [target.name, target]));
  const onlyA: DifferingTarget[] = [];
  const changed: SelectionDiff["changed"][number][] = [];
  let same = 0;
  for (const target of targetsOf(left)) {
    const other = values.get(target.name);
    values.delete(target.name);
    if (other === undefined) onlyA.push(target);
    else if (other.r === target.r && other.alpha === target.alpha && other.scaling === target.scaling) same++;
    else changed.push({ name: target.name, a: valuesOf(target), b: valuesOf(other) });
  }
  const diff = {
    onlyA,
    onlyB: [...values.values()],
    changed,
    same,
    modulesToSave: differ(left.modulesToSave, right.modulesToSave),
    tokenModules: differ(left.tokenModules, right.tokenModules),
    trainableParameters: { a: left.trainableParameters, b: right.trainableParameters },
  };
  const lines = describe(tree, left, right, diff);
  return { ...diff, isEmpty: lines.length === 0, lines };
}

function resolve(tree: ModuleTree, side: Side, name: "a" | "b"): Selection {
  if (side instanceof Selection) return side;
  if (isCompiled(side)) return side.selection;
  try {
    return selectTargets(tree, side as SelectionConfig);
  } catch (error) {
    if (error instanceof SelectionError) error.details["side"] = name;
    throw error;
  }
}

const targetsOf = ({ targets, targetParameters }: Selection): DifferingTarget[] =>
  [...targets, ...targetParameters].map((target) => ({ name: target.name, ...valuesOf(target) }));

const valuesOf = ({ r, alpha, scaling, parameters }: TargetValues): TargetValues => ({
  r,
  alpha,
  scaling,
  parameters,
});

function differ(a: readonly string[], b: readonly string[]) {
  return { onlyA: a.filter((name) => !b.includes(name)), onlyB: b.filter((name) => !a.includes(name)) };
}

type Compared = Omit<SelectionDiff, "isEmpty" | "lines">;

function describe(tree: ModuleTree, left: Selection, right: Selection, diff: Compared): string[] {
  const deeper = [left, right].find((side) => partsOf(side).preparation.steps.isReplicated);
  const structure = structureOf(
    deeper === undefined ? tree : effectiveTree(tree, partsOf(deeper).preparation),
  );
  const lines: string[] = [];
  const list = (sign: string, names: readonly string[], note = ""): void => {
    for (const { text, count } of foldNames(names, structure))
      lines.push(`${sign} ${text}${count > 1 ? ` (${count})` : ""}${note}`);
  };
  for (const [sign, targets] of [
    ["-", diff.onlyA],
    ["+", diff.onlyB],
  ] as const)
    for (const [note, names] of groupBy(targets, valueText)) list(sign, names, note);
  for (const [note, names] of groupBy(diff.changed, ({ a, b }) => `${valueText(a)} →${valueText(b)}`))
    list("~", names, note);
  list("-", diff.modulesToSave.onlyA, " trained as a whole");
  list("+", diff.modulesToSave.onlyB, " trained as a whole");
  list("-", diff.tokenModules.onlyA, " some token rows");
  list("+", diff.tokenModules.onlyB, " some token rows");
  const { a, b } = diff.trainableParameters;
  if (a !== b) lines.push(`~ trainable parameters ${a} → ${b}`);
  return lines;
}

const valueText = ({ r, alpha, scaling }: TargetValues): string =>
  ` r ${r}, alpha ${alpha}, scaling ${Number(scaling.toPrecision(6))}`;

function groupBy<T extends { readonly name: string }>(
  items: readonly T[],
  key: (item: T) => string,
): Map<string, string[]> {
  const groups = new Map<string, string[]>();
  for (const item of items) {
    const group = key(item);
    const known = groups.get(group);
    if (known === undefined) groups.set(group, [item.name]);
    else known.push(item.name);
  }
  return groups;
}
