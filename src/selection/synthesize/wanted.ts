import { listProblems, nearest, SelectionError } from "../../errors.ts";
import { mambaForbiddenLeaves, mambaModelTypes, moeRenames } from "../peft/defaults.ts";
import { leafOf, parentOf } from "../python.ts";
import { adaptableKinds, type ModuleInfo, type ModuleKind, type ModuleTree } from "../tree.ts";
import type { Places } from "./places.ts";

/** Rank and alpha that a module is to have. */
export type RankAndAlpha = { readonly r: number; readonly alpha: number };

/** More names than this are not compared with a misspelt one. */
const maxCompared = 2000;

/**
 * Checks that all names are modules that can carry LoRA.
 * @throws SelectionError `unknown-module` (with the nearest names) or else `unsupported-module`; either lists every
 * problem of both kinds.
 */
export function checkWanted(tree: ModuleTree, places: Places, wanted: Iterable<string>): void {
  const modules = new Map(tree.modules.map((module) => [module.name, module]));
  const unknown: { name: string; nearest: string[] }[] = [];
  const unsupported: { name: string; kind: ModuleKind; className: string }[] = [];
  const problems: string[] = [];
  for (const name of wanted) {
    const module = modules.get(name);
    if (module === undefined) {
      const isListed = unknown.length < 8;
      const hints = isListed ? suggestions(tree, places, name) : [];
      unknown.push({ name, nearest: hints });
      const closest = hints.map((hint) => JSON.stringify(hint)).join(", ");
      problems.push(
        `${JSON.stringify(name)} is no module of it${closest === "" ? "" : ` (closest: ${closest})`}`,
      );
    } else {
      const reason = whyUnsupported(tree, module);
      if (reason === undefined) continue;
      unsupported.push({ name, kind: module.kind, className: module.className });
      problems.push(`${name === "" ? "the model itself" : JSON.stringify(name)} ${reason}`);
    }
  }
  if (problems.length === 0) return;
  const remedy =
    unknown.length > 0
      ? "Names are dotted paths as named_modules() lists them."
      : unsupported.every(({ kind }) => adaptableKinds.has(kind))
        ? "Leave them out."
        : "Name the layers inside them: Linear, Embedding, Conv or MultiheadAttention modules.";
  throw new SelectionError(
    `${problems.length} of the wanted modules cannot be adapted in ${tree.name}: ${listProblems(problems)}. ${remedy}`,
    { code: unknown.length > 0 ? "unknown-module" : "unsupported-module", details: { unknown, unsupported } },
  );
}

function whyUnsupported(tree: ModuleTree, { name, kind, className }: ModuleInfo): string | undefined {
  if (!adaptableKinds.has(kind) || name === "") return `is a ${className} (${kind}), which cannot carry LoRA`;
  if (mambaModelTypes.has(tree.modelType) && mambaForbiddenLeaves.has(leafOf(name)))
    return `is read directly by Mamba's fused kernels, so PEFT refuses to adapt it`;
  return undefined;
}

function suggestions(tree: ModuleTree, places: Places, name: string): string[] {
  const alias = tree.duplicateModules.find(([path]) => path === name);
  if (alias !== undefined) return [alias[1]];
  const leaf = leafOf(name);
  const parent = parentOf(name);
  const relatives: string[] = [];
  const firsts = new Map<string, string>();
  for (const { name: other } of tree.modules) {
    if (other === "") continue;
    if (relatives.length < maxCompared && (leafOf(other) === leaf || parentOf(other) === parent))
      relatives.push(other);
    const template = places.templateOf(other);
    if (firsts.size < maxCompared && !firsts.has(template)) firsts.set(template, other);
  }
  return nearest(name, [...relatives, ...firsts.values()]);
}

/** Old projection names that PEFT turns into parameters of this model type, so that no list or regex reaches them. */
export function renamedLeaves({ modelType }: ModuleTree): ReadonlySet<string> | undefined {
  return Object.hasOwn(moeRenames, modelType) ? new Set(Object.keys(moeRenames[modelType]!.map)) : undefined;
}
