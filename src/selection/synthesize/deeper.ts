import { SelectionError } from "../../errors.ts";
import { numberRuns } from "../number-runs.ts";
import type { SelectionConfig } from "../peft/options.ts";
import { selectTargets } from "../peft/select.ts";
import { leafOf } from "../python.ts";
import type { NumberedList } from "../structure/index.ts";
import type { ModuleInfo, ModuleTree } from "../tree.ts";
import type { Places } from "./places.ts";

/** What a configuration does on a model of the same kind that has more layers. */
export type Deeper = {
  /** Whether it selects the same names there, no others and none less. */
  readonly same: boolean;
  readonly message: string;
  /** Names of new modules that it takes there too. */
  readonly added: readonly string[];
  /** Names that it no longer takes. */
  readonly missing: readonly string[];
};

/**
 * Runs a configuration on a sibling of the tree in which every outermost stack of layers is longer by half.
 * @param wanted the names that it selects on the tree itself.
 */
export function onDeeperSibling(
  tree: ModuleTree,
  places: Places,
  config: SelectionConfig,
  wanted: ReadonlySet<string>,
): Deeper {
  const { stacks } = places.structure;
  if (stacks.length === 0)
    return {
      same: true,
      message: "The model has no repeated layers, so none could be added.",
      added: [],
      missing: [],
    };
  let selected: Set<string>;
  try {
    selected = new Set(selectTargets(deepen(tree, stacks), config).targets.map(({ name }) => name));
  } catch (error) {
    if (!(error instanceof SelectionError)) throw error;
    const message = `${beginning} PEFT would refuse it: ${error.message}`;
    return { same: false, message, added: [], missing: [...wanted] };
  }
  const added = [...selected].filter((name) => !wanted.has(name));
  const missing = [...wanted].filter((name) => !selected.has(name));
  const same = added.length === 0 && missing.length === 0;
  return { same, message: describe(stacks, wanted, added, missing), added, missing };
}

const beginning = "On a deeper model of this kind";

const addedLayers = (list: NumberedList): number => Math.ceil(list.indices.length / 2);

/** New layers repeat the last ones, so that kinds of layers that take turns go on doing so. */
function deepen(tree: ModuleTree, stacks: readonly NumberedList[]): ModuleTree {
  const lists = new Map(stacks.map((list) => [list.path, list]));
  const modules: ModuleInfo[] = [];
  const open: { list: NumberedList; start: number }[] = [];
  const close = (): void => {
    const { list, start } = open.pop()!;
    const items = new Map<number, ModuleInfo[]>();
    for (const module of modules.slice(start)) {
      const index = Number(restOf(module.name, list.path).split(".", 1)[0]);
      const item = items.get(index);
      if (item === undefined) items.set(index, [module]);
      else item.push(module);
    }
    const count = addedLayers(list);
    const next = list.indices.at(-1)! + 1;
    list.indices.slice(-count).forEach((index, i) => {
      const from = itemPath(list, index);
      const to = itemPath(list, next + i);
      for (const module of items.get(index)!)
        modules.push({ ...module, name: to + module.name.slice(from.length) });
    });
  };
  for (const module of tree.modules) {
    while (open.length > 0 && !isWithin(module.name, open.at(-1)!.list.path)) close();
    modules.push(module);
    const list = lists.get(module.name);
    if (list !== undefined) open.push({ list, start: modules.length });
  }
  while (open.length > 0) close();
  const { stateDict: _, ...rest } = tree;
  return { ...rest, modules };
}

const itemPath = ({ path }: NumberedList, index: number): string =>
  path === "" ? `${index}` : `${path}.${index}`;
const isWithin = (name: string, path: string): boolean => path === "" || name.startsWith(`${path}.`);
const restOf = (name: string, path: string): string => (path === "" ? name : name.slice(path.length + 1));
const indexIn = (name: string, path: string): number => Number(restOf(name, path).split(".", 1)[0]);

function describe(
  stacks: readonly NumberedList[],
  wanted: ReadonlySet<string>,
  added: readonly string[],
  missing: readonly string[],
): string {
  const grows: string[] = [];
  const stays: string[] = [];
  for (const list of stacks) {
    const own = [...wanted].filter((name) => isWithin(name, list.path));
    const more = added.filter((name) => isWithin(name, list.path));
    const path = list.path === "" ? "the model" : list.path;
    if (more.length > 0) {
      const layers = numbersOf(more, list);
      const isEvery = layers.length === addedLayers(list);
      const which = isEvery ? `the new layers of ${path}` : `the new layers ${ranges(layers)} of ${path}`;
      const wasAll = numbersOf(own, list).length === list.indices.length;
      grows.push(`${leavesOf(more)} in ${which}${isEvery && wasAll ? " (all layers stay all layers)" : ""}`);
    } else if (own.length > 0) stays.push(`${layersText(numbersOf(own, list))} of ${path}`);
  }
  const sentences: string[] = [];
  if (grows.length > 0) sentences.push(`${beginning} it would also take ${joined(grows)}.`);
  if (stays.length > 0)
    sentences.push(
      grows.length > 0
        ? `It stays with ${joined(stays)}, by number: none of the new ones.`
        : `${beginning} it takes the same numbered layers, none of the new ones: ${joined(stays)}.`,
    );
  if (missing.length > 0)
    sentences.push(
      `${sentences.length === 0 ? `${beginning} it` : "It"} would no longer take ${missing.length === 1 ? missing[0] : `${missing.length} of the modules, such as ${missing[0]}`}.`,
    );
  if (sentences.length === 0)
    sentences.push(`${beginning} it takes the same modules: none of them is in a repeated layer.`);
  return sentences.join(" ");
}

const numbersOf = (names: readonly string[], { path }: NumberedList): number[] =>
  [...new Set(names.map((name) => indexIn(name, path)))].sort((a, b) => a - b);

const layersText = (numbers: readonly number[]): string =>
  `${numbers.length === 1 ? "layer" : "layers"} ${ranges(numbers)}`;

/** `0–3, 7`. */
const ranges = (numbers: readonly number[]): string =>
  numberRuns(numbers)
    .map(([first, last]) =>
      last - first >= 2 ? `${first}–${last}` : first === last ? `${first}` : `${first}, ${last}`,
    )
    .join(", ");

const shownLeaves = 4;

function leavesOf(names: readonly string[]): string {
  const leaves = [...new Set(names.map(leafOf))].sort();
  return leaves.length > shownLeaves ? `${leaves.length} kinds of modules` : joined(leaves);
}

const joined = (texts: readonly string[]): string =>
  texts.length < 2 ? texts.join("") : `${texts.slice(0, -1).join(", ")} and ${texts.at(-1)}`;
