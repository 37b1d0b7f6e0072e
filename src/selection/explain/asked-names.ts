import { listedProblems, nearest, SelectionError } from "../../errors.ts";
import { leafOf } from "../python.ts";

/** Longer names are not compared with others, and each with at most so many of one last part. */
const comparable = 200;
const mostCompared = 1000;

/**
 * The names that somebody asks for: full names, or globs, in which `*` stands for any characters, dots too, and `?`
 * for one. PEFT's own names, which start with `base_model.model.`, are understood.
 * @throws SelectionError `unknown-module` naming everything that is not there, with the nearest names.
 */
export function resolveAsked(
  asked: Iterable<string>,
  names: readonly string[],
  extra: Iterable<string>,
  model: string,
): string[] {
  const known = new Set([...names, ...extra]);
  const found = new Set<string>();
  const unknown: string[] = [];
  for (const wanted of asked) {
    const plain = wanted.replace(/^base_model\.model\./, "");
    if (known.has(wanted)) found.add(wanted);
    else if (known.has(plain)) found.add(plain);
    else if (/[*?]/.test(wanted)) {
      const before = found.size;
      let any = false;
      for (const name of names)
        if (name !== "" && matchesGlob(wanted, name)) {
          any = true;
          found.add(name);
        }
      if (!any && before === found.size) unknown.push(wanted);
    } else unknown.push(wanted);
  }
  if (unknown.length > 0) throw unknownNames(unknown, names, model);
  return [...found];
}

function unknownNames(unknown: readonly string[], names: readonly string[], model: string): SelectionError {
  const near: Record<string, string[]> = {};
  const byLeaf = new Map<string, string[]>();
  for (const name of names) {
    const leaf = leafOf(name);
    const known = byLeaf.get(leaf);
    if (known === undefined) byLeaf.set(leaf, [name]);
    else if (known.length < mostCompared) known.push(name);
  }
  const closest = (wanted: string): string[] => {
    if (wanted.length > comparable || /[*?]/.test(wanted)) return [];
    // names are many, their last parts are few
    const leaves = nearest(leafOf(wanted), byLeaf.keys(), 2);
    const alike = leaves.flatMap((leaf) => byLeaf.get(leaf)!);
    const close = nearest(wanted, alike, 3);
    return close.length > 0 ? close : alike.slice(0, 3);
  };
  const parts = unknown.slice(0, listedProblems).map((wanted) => {
    const candidates = closest(wanted);
    near[wanted] = candidates;
    const hint = candidates.length === 0 ? "" : ` (nearest: ${candidates.map(quote).join(", ")})`;
    return `${quote(wanted.slice(0, comparable))}${hint}`;
  });
  const more = unknown.length > parts.length ? ` and ${unknown.length - parts.length} more` : "";
  return new SelectionError(
    `"${model}" has no module ${parts.join("; ")}${more}. Give names as graft inspect lists them, or a pattern such as ` +
      `"*layers.3*".`,
    { code: "unknown-module", details: { names: unknown, nearest: near } },
  );
}

const quote = (text: string): string => JSON.stringify(text);

/** Does a glob match the whole of a text? Backtracks to the last star only, so the time is at most their product. */
export function matchesGlob(glob: string, text: string): boolean {
  let g = 0;
  let t = 0;
  let star = -1;
  let resume = 0;
  while (t < text.length) {
    if (g < glob.length && glob[g] === "*") {
      star = g++;
      resume = t;
    } else if (g < glob.length && (glob[g] === "?" || glob[g] === text[t])) {
      g++;
      t++;
    } else if (star !== -1) {
      g = star + 1;
      t = ++resume;
    } else return false;
  }
  while (glob[g] === "*") g++;
  return g === glob.length;
}
