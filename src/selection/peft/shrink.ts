import { failure } from "../failure.ts";

/**
 * The shortest tails that still tell the targets from all other modules; `targets` itself where that is not shorter.
 * PEFT goes through the targets in a fixed order; the order has no effect: each target contributes its shortest tail
 * that no other module has.
 * @param names all module names, the root included.
 * @throws SelectionError if an entry is empty.
 * Source: PEFT 0.21 `_find_minimal_target_modules` and its call in `inject_adapter`.
 */
export function shrinkTargets(targets: ReadonlySet<string>, names: Iterable<string>): Set<string> {
  if (targets.has(""))
    throw failure(
      "inject",
      "ValueError",
      "empty-string-in-long-list",
      `targetModules holds an empty string among its ${targets.size} entries. Remove it.`,
    );
  const taken = new Set<string>();
  for (const name of names)
    if (!targets.has(name) && !hasTailIn(name, targets))
      // where a long tail is known, all shorter ones are
      for (let start = 0; ; ) {
        const tail = start === 0 ? name : name.slice(start);
        if (taken.has(tail)) break;
        taken.add(tail);
        const dot = name.indexOf(".", start);
        if (dot === -1) break;
        start = dot + 1;
      }
  const required = new Set<string>();
  for (const target of targets) {
    const tail = shortestFree(target, taken);
    if (tail !== undefined) required.add(tail);
  }
  return required.size > 0 && required.size < targets.size ? required : new Set(targets);
}

function hasTailIn(name: string, targets: ReadonlySet<string>): boolean {
  for (let dot = name.indexOf("."); dot !== -1; dot = name.indexOf(".", dot + 1))
    if (targets.has(name.slice(dot + 1))) return true;
  return false;
}

function shortestFree(name: string, taken: ReadonlySet<string>): string | undefined {
  for (let end = name.length; end >= 0; ) {
    const dot = end === 0 ? -1 : name.lastIndexOf(".", end - 1);
    const tail = name.slice(dot + 1);
    if (!taken.has(tail)) return tail;
    end = dot;
  }
  return undefined;
}
