import type { Target } from "../selection/index.ts";
import { numberRuns } from "../selection/number-runs.ts";

/**
 * Targets in a few words: "q_proj, v_proj in layers 4–5; lm_head". Those of the same layers stand together. Where lists lie
 * inside of lists, the outer or the inner number is the layer, whichever says it shorter.
 */
export function describeTargets(names: readonly string[]): string {
  const outer = describeBy(names, outerNumber);
  const inner = describeBy(names, innerNumber);
  return inner.length < outer.length ? inner : outer;
}

/** Where a name's outermost number starts that something follows; -1 if there is none. One before all else is the last choice. */
function outerNumber(name: string): number {
  for (let dot = name.indexOf("."); dot !== -1; dot = name.indexOf(".", dot + 1))
    if (numberEnd(name, dot + 1) !== -1) return dot + 1;
  return numberEnd(name, 0) === -1 ? -1 : 0;
}

function innerNumber(name: string): number {
  for (let dot = name.lastIndexOf("."); dot !== -1; dot = dot === 0 ? -1 : name.lastIndexOf(".", dot - 1))
    if (numberEnd(name, dot + 1) !== -1) return dot + 1;
  return numberEnd(name, 0) === -1 ? -1 : 0;
}

/** Where the number at `start` ends, at a dot that something follows; -1 if there is no such number. */
function numberEnd(name: string, start: number): number {
  let end = start;
  for (let code = name.charCodeAt(end); code >= 48 && code <= 57; code = name.charCodeAt(end)) end++;
  return end > start && name[end] === "." && end + 1 < name.length ? end : -1;
}

function describeBy(names: readonly string[], numberIn: (name: string) => number): string {
  const lists = new Map<string, Map<string, number[]>>();
  const found: { container: string; tail: string; indices: number[] }[] = [];
  const rest: string[] = [];
  for (const name of names) {
    const start = numberIn(name);
    if (start === -1) {
      rest.push(name);
      continue;
    }
    const end = numberEnd(name, start);
    const container = name.slice(0, Math.max(0, start - 1));
    const tail = name.slice(end + 1);
    let tails = lists.get(container);
    if (tails === undefined) {
      tails = new Map();
      lists.set(container, tails);
    }
    const index = Number(name.slice(start, end));
    const indices = tails.get(tail);
    if (indices !== undefined) indices.push(index);
    else {
      const first = [index];
      tails.set(tail, first);
      found.push({ container, tail, indices: first });
    }
  }
  const tails = new Set(found.map(({ tail }) => tail));
  const leaves = new Set([...tails].map(leafOf));
  const short = leaves.size === tails.size ? leafOf : (tail: string): string => tail;
  const byLayers = new Map<string, string[]>();
  for (const { container, tail, indices } of found) {
    const list = lists.size === 1 ? listOf(container) : container;
    const where = `${list || "items"} ${ranges(indices)}`;
    const modules = byLayers.get(where);
    if (modules === undefined) byLayers.set(where, [short(tail)]);
    else modules.push(short(tail));
  }
  const groups = [...byLayers].map(([where, modules]) => `${modules.join(", ")} in ${where}`);
  return [...groups, ...rest].join("; ");
}

/** A list by its last name; one inside of a list with that list's, too: "blocks.2". */
function listOf(container: string): string {
  const leaf = leafOf(container);
  if (!/^\d+$/.test(leaf) || leaf === container) return leaf;
  return `${leafOf(container.slice(0, -leaf.length - 1))}.${leaf}`;
}

const leafOf = (name: string): string => name.slice(name.lastIndexOf(".") + 1);

/** `[0, 1, 2, 5]` as "0–2, 5". */
export const ranges = (numbers: readonly number[]): string =>
  numberRuns(numbers)
    .map(([first, last]) => (first === last ? `${first}` : `${first}–${last}`))
    .join(", ");

/** What a target is in JSON. */
export const targetJson = ({ name, r, alpha, scaling, parameters }: Target) => ({
  name,
  r,
  alpha,
  scaling,
  parameters,
});

/** `1234567` as "1,234,567". For integers without Intl, which takes some 20 ms to load its data. */
export const grouped = (n: number): string =>
  Number.isSafeInteger(n) ? String(n).replace(/\B(?=(?:\d{3})+$)/g, ",") : n.toLocaleString("en-US");

/** `1536000` as "1.5 MB". */
export function bytes(n: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  let size = n;
  for (; size >= 1000 && unit < units.length - 1; unit++) size /= 1000;
  return `${unit === 0 ? size : size.toFixed(1)} ${units[unit]}`;
}

/** `75.4` seconds as "1:15". */
export function clock(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60)];
  const two = (n: number): string => String(n).padStart(2, "0");
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** A word for the shell: quoted where it must be. */
export const shellWord = (word: string): string =>
  /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
