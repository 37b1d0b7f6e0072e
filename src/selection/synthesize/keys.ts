import { compile } from "../../regex/index.ts";
import { regexEscape } from "../python.ts";
import { nameTails, plainList } from "./lists.ts";
import type { Places } from "./places.ts";
import { findAlternatives } from "./regex.ts";

/** Above this many names, tails that hold numbers are no candidates: a regex says it shorter. */
const maxNamedTails = 24;

/**
 * Keys of `rankPattern` or `alphaPattern` that give each target its value, where it is not `base`. The groups of few
 * targets go first, and the first key that matches wins, so a key needs to tell its targets from later groups only.
 */
export function patternKeys(
  places: Places,
  values: ReadonlyMap<string, number>,
  base: number,
): Map<string, number> {
  const groups = new Map<number, string[]>();
  for (const [name, value] of values) {
    if (value === base) continue;
    const group = groups.get(value);
    if (group === undefined) groups.set(value, [name]);
    else group.push(name);
  }
  const keys = new Map<string, number>();
  const left = new Set(values.keys());
  for (const [value, names] of [...groups].sort(([, a], [, b]) => a.length - b.length)) {
    for (const key of keysFor(places, names, left)) keys.set(key, value);
    for (const name of names) left.delete(name);
  }
  return keys;
}

/** Keys that name each target in full: long, but beyond doubt. */
export function fullNameKeys(values: ReadonlyMap<string, number>, base: number): Map<string, number> {
  return new Map(
    [...values]
      .filter(([, value]) => value !== base)
      .map(([name, value]) => [`^${regexEscape(name)}`, value]),
  );
}

function keysFor(places: Places, names: readonly string[], all: ReadonlySet<string>): string[] {
  const own = new Set(names);
  const others = [...all].filter((name) => !own.has(name));
  const shapes = places.shapesOf(all, own);
  const tails =
    plainList(shapes, others)?.targets ??
    (names.length <= maxNamedTails ? nameTails(names, others) : undefined);
  const found = findAlternatives(shapes);
  const regexes = found && [...found.inner, ...found.whole].map((text) => asKey(text, others));
  if (regexes !== undefined && (tails === undefined || cost(regexes) < cost(tails))) return regexes;
  return (tails ?? nameTails(names, others) ?? names.map((name) => `^${regexEscape(name)}`)).map(notNumeric);
}

/** Characters to read; those of a regex count double. */
const cost = (keys: readonly string[]): number =>
  keys.reduce((sum, key) => sum + key.length * (/^[\w.-]+$/.test(key) ? 1 : 2) + 8, 0);

/** PEFT puts `(.*\.)?` before a key: it need not say so itself, and must begin with `^` where that is not meant. */
function asKey(text: string, others: readonly string[]): string {
  const key = text.startsWith("(.*\\.)?") ? text.slice(7) : text;
  const plain = key.replace(/\\([.-])/g, "$1");
  const readable = /^[\w.-]+$/.test(plain) ? plain : key;
  const pattern = compile(`(.*\\.)?(${readable})$`);
  if (!others.some((name) => pattern.match(name) !== null)) return notNumeric(readable);
  return /^\w+(?:\|\w+)+$/.test(key) ? `^(${key})` : `^${key}`;
}

/** JavaScript moves object keys that look like integers to the front. */
const notNumeric = (key: string): string => (/^\d+$/.test(key) ? `(${key})` : key);
