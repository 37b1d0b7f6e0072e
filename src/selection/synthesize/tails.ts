import { slot } from "./places.ts";

export type Path = readonly string[];

/** How the ends of names tell the wanted ones from the others behind a common head. */
export type Tails =
  /** Nothing else is there. */
  | { readonly kind: "any" }
  /** The end of the last part, such as `_proj`, of at least three different ones. */
  | { readonly kind: "ending"; readonly ending: string }
  /** Dotted tails, and what has no tail of its own and must follow the head directly. */
  | { readonly kind: "paths"; readonly tails: readonly Path[]; readonly exact: readonly Path[] };

/** An ending is said once instead of as many parts, if it has this many characters. */
const shortestEnding = 3;

/**
 * The shortest tails of `wanted` that end none of `others`. Both are what follows a head: different paths.
 */
export function tailsOf(wanted: readonly Path[], others: readonly Path[]): Tails {
  if (others.length === 0) return { kind: "any" };
  const taken = new Set<string>();
  for (const path of others)
    for (let start = 0; start < path.length; start++) taken.add(path.slice(start).join("."));
  const tails = new Map<string, Path>();
  const exact: Path[] = [];
  for (const path of wanted) {
    const tail = shortestFree(path, taken);
    if (tail === undefined) exact.push(path);
    else tails.set(tail.join("."), tail);
  }
  const found = [...tails].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, tail]) => tail);
  const ending = exact.length === 0 ? commonEnding(found) : undefined;
  if (ending !== undefined && !others.some((path) => path.at(-1)!.endsWith(ending)))
    return { kind: "ending", ending };
  return { kind: "paths", tails: found, exact };
}

function shortestFree(path: Path, taken: ReadonlySet<string>): Path | undefined {
  for (let start = path.length - 1; start >= 0; start--) {
    const tail = path.slice(start);
    if (!startsWithNumber(tail) && !taken.has(tail.join("."))) return tail;
  }
  return undefined;
}

/** A number alone says nothing to a reader; the list it belongs to goes with it. */
export const startsWithNumber = (tail: Path): boolean => tail[0] === slot || /^\d+$/.test(tail[0]!);

/** `_proj` of q_proj, k_proj and v_proj. */
function commonEnding(tails: readonly Path[]): string | undefined {
  if (tails.length < 3) return undefined;
  const leaves = tails.map((tail) => tail.at(-1)!);
  const first = leaves[0]!;
  for (let start = first.indexOf("_", 1); start > 0; start = first.indexOf("_", start + 1)) {
    const ending = first.slice(start);
    if (ending.length < shortestEnding) return undefined;
    if (leaves.every((leaf) => leaf.endsWith(ending))) return ending;
  }
  return undefined;
}

export const endsWith = (path: Path, tail: Path): boolean =>
  path.length >= tail.length && tail.every((part, i) => path[path.length - tail.length + i] === part);

/** Is what follows a head accepted, at any distance from it? */
export function accepts(tails: Tails, rest: Path): boolean {
  switch (tails.kind) {
    case "any":
      return rest.length > 0;
    case "ending":
      return rest.length > 0 && rest.at(-1)!.endsWith(tails.ending);
    case "paths":
      return (
        tails.tails.some((tail) => endsWith(rest, tail)) ||
        tails.exact.some((path) => path.length === rest.length && endsWith(rest, path))
      );
  }
}
