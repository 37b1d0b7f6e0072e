import type { Target } from "../selection/index.ts";

/**
 * Targets in a few words: "q_proj, v_proj in layers 4–5; lm_head". Those of the same layers stand together. Where lists lie
 * inside of lists, the outer or the inner number is the layer, whichever says it shorter.
 */
export function describeTargets(names: readonly string[]): string {
  const outer = describeBy(names, /^(?:(.*?)\.)?(\d+)\.(.+)$/);
  const inner = describeBy(names, /^(?:(.*)\.)?(\d+)\.(.+)$/);
  return inner.length < outer.length ? inner : outer;
}

function describeBy(names: readonly string[], split: RegExp): string {
  const numbered = names.map((name) => split.exec(name));
  const containers = new Set(numbered.flatMap((match) => (match ? [match[1] ?? ""] : [])));
  const tails = new Set(numbered.flatMap((match) => (match ? [match[3]!] : [])));
  const leaves = new Set([...tails].map(leafOf));
  const short = leaves.size === tails.size ? leafOf : (tail: string): string => tail;
  const byTail = new Map<string, { container: string; tail: string; indices: number[] }>();
  const rest: string[] = [];
  for (const [i, match] of numbered.entries()) {
    if (!match) {
      rest.push(names[i]!);
      continue;
    }
    const [, container = "", index, tail] = match as unknown as [string, string | undefined, string, string];
    const key = `${container} ${tail}`;
    const entry = byTail.get(key) ?? { container, tail: short(tail), indices: [] };
    entry.indices.push(Number(index));
    byTail.set(key, entry);
  }
  const byLayers = new Map<string, string[]>();
  for (const { container, tail, indices } of byTail.values()) {
    const list = containers.size === 1 ? leafOf(container) : container;
    const where = `${list || "items"} ${ranges(indices)}`;
    byLayers.set(where, [...(byLayers.get(where) ?? []), tail]);
  }
  const groups = [...byLayers].map(([where, modules]) => `${modules.join(", ")} in ${where}`);
  return [...groups, ...rest].join("; ");
}

const leafOf = (name: string): string => name.slice(name.lastIndexOf(".") + 1);

/** `[0, 1, 2, 5]` as "0–2, 5". */
export function ranges(numbers: readonly number[]): string {
  const sorted = [...new Set(numbers)].sort((a, b) => a - b);
  const parts: string[] = [];
  for (let start = 0; start < sorted.length; ) {
    let end = start;
    while (sorted[end + 1] === sorted[end]! + 1) end++;
    parts.push(end === start ? `${sorted[start]}` : `${sorted[start]}–${sorted[end]}`);
    start = end + 1;
  }
  return parts.join(", ");
}

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
