import { regexEscape } from "../python.ts";
import { slot } from "./places.ts";
import { endsWith, type Path, type Tails } from "./tails.ts";

/** Parts of names as regexes. */
export const renderPath = (path: Path): string[] =>
  path.map((part) => (part === slot ? "\\d+" : regexEscape(part)));

/** One alternative as it is, several in parentheses. */
export const group = (alternatives: readonly string[]): string =>
  alternatives.length === 1 ? alternatives[0]! : `(${alternatives.join("|")})`;

/**
 * Rendered paths as few alternatives, with what they have in common at the front or at the end written once:
 * `self_attn\.(q_proj|v_proj)`, `(encoder|decoder)\.layers\.[45]`.
 */
export function alternatives(paths: readonly (readonly string[])[]): string[] {
  const unique = [...new Map(paths.map((path) => [path.join("."), path])).values()];
  const fromFront = factor(unique, false);
  const fromEnd = factor(unique, true);
  return group(fromEnd).length < group(fromFront).length ? fromEnd : fromFront;
}

function factor(paths: readonly (readonly string[])[], fromEnd: boolean): string[] {
  const rests = new Map<string, (readonly string[])[]>();
  for (const path of paths) {
    const key = fromEnd ? path.at(-1)! : path[0]!;
    const rest = fromEnd ? path.slice(0, -1) : path.slice(1);
    const known = rests.get(key);
    if (known === undefined) rests.set(key, [rest]);
    else known.push(rest);
  }
  const keys = new Map<string, string[]>();
  for (const [key, some] of rests) {
    const longer = some.filter(({ length }) => length > 0);
    let text = "";
    if (longer.length > 0) {
      const inner = group(factor(longer, fromEnd));
      text = fromEnd ? `${inner}\\.` : `\\.${inner}`;
      if (longer.length < some.length) text = `(${text})?`;
    }
    keys.set(text, [...(keys.get(text) ?? []), key]);
  }
  return [...keys].flatMap(([text, same]) => {
    if (text === "") return same;
    return [fromEnd ? text + group(same) : group(same) + text];
  });
}

/** How far behind its head a tail is found: right there, or with parts between. */
type Distance = "direct" | "deep" | "both";

function distanceOf(tail: Path, rests: readonly Path[]): Distance | undefined {
  const found = new Set<Distance>();
  for (const rest of rests)
    if (endsWith(rest, tail)) found.add(rest.length > tail.length ? "deep" : "direct");
  return found.size === 2 ? "both" : [...found][0];
}

/** Equal for fronts whose tails can be written alike. */
export function distancesOf(tails: Tails, rests: readonly Path[]): string {
  if (tails.kind !== "paths") return "";
  const found = new Set(tails.tails.map((tail) => distanceOf(tail, rests)));
  found.delete(undefined);
  return found.size === 1 ? [...found][0]! : "both";
}

/**
 * What may follow a head, or stand alone: tails behind any number of parts where they do so in `rests`.
 * @param rests what follows the head in the wanted names.
 */
export function renderTails(tails: Tails, rests: readonly Path[]): string[] {
  if (tails.kind === "any") return [".*"];
  if (tails.kind === "ending") return [`.*${regexEscape(tails.ending)}`];
  const common = distancesOf(tails, rests) as Distance;
  const at = (distance: Distance): Path[] =>
    tails.tails.filter((tail) => (distanceOf(tail, rests) ?? common) === distance);
  const [direct, deep, both] = [at("direct"), at("deep"), at("both")];
  const apart = [...render(direct), ...behind(anyParts, both), ...behind(someParts, deep)];
  const kinds = [direct, deep, both].filter(({ length }) => length > 0).length;
  const together = kinds > 1 ? behind(anyParts, tails.tails) : apart;
  const shorter = apart.length > 0 && group(together).length < group(apart).length ? together : apart;
  return [...render(tails.exact), ...shorter];
}

const someParts = ".*\\.";
const anyParts = "(.*\\.)?";

const render = (paths: readonly Path[]): string[] =>
  paths.length === 0 ? [] : alternatives(paths.map(renderPath));

const behind = (gap: string, paths: readonly Path[]): string[] =>
  paths.length === 0 ? [] : [gap + group(render(paths))];
