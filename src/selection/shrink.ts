import { failure } from "./failure.ts";
import { Tails } from "./match.ts";
import { compareCodePoints } from "./python.ts";

/**
 * The shortest tails that still tell the targets from all other modules; `targets` itself where that is not shorter.
 * @param names all module names, the root included.
 * @throws SelectionError if an entry is empty.
 * Source: PEFT 0.21 `_find_minimal_target_modules` and its call in `inject_adapter`.
 */
export function shrinkTargets(targets: ReadonlySet<string>, names: readonly string[]): Set<string> {
  if (targets.has(""))
    throw failure(
      "inject",
      "ValueError",
      "empty-string-in-long-list",
      `targetModules holds an empty string among its ${targets.size} entries. Remove it.`,
    );
  const tails = new Tails(targets);
  const taken = new Set<string>();
  for (const name of names)
    if (tails.entryFor(name) === undefined) for (const tail of tailsOf(name)) taken.add(tail);

  const required = new Set<string>();
  const byTails = [...targets].map((target) => tailsOf(target)).sort(compareLists);
  for (const tailList of byTails) {
    const target = tailList[tailList.length - 1]!;
    for (const tail of tailList) {
      if (required.has(tail) || taken.has(tail)) continue;
      if (endsWithAny(target, required)) continue;
      required.add(tail);
      break;
    }
  }
  return required.size > 0 && required.size < targets.size ? required : new Set(targets);
}

/** Tails of a name at dots, short to long; the last is the name itself. */
function tailsOf(name: string): string[] {
  const tails: string[] = [];
  for (let dot = name.lastIndexOf("."); dot !== -1; dot = dot === 0 ? -1 : name.lastIndexOf(".", dot - 1))
    tails.push(name.slice(dot + 1));
  tails.push(name);
  return tails;
}

function endsWithAny(name: string, tails: ReadonlySet<string>): boolean {
  for (let dot = name.indexOf("."); dot !== -1; dot = name.indexOf(".", dot + 1))
    if (tails.has(name.slice(dot + 1))) return true;
  return false;
}

function compareLists(a: readonly string[], b: readonly string[]): number {
  for (let i = 0; i < a.length && i < b.length; i++) {
    const order = compareCodePoints(a[i]!, b[i]!);
    if (order !== 0) return order;
  }
  return a.length - b.length;
}
