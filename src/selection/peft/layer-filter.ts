import { failure } from "../failure.ts";
import { isTruthy, type ResolvedConfig, type Tuple } from "./options.ts";
import { isPlainName, isSimple, type Patterns, simpleAt } from "./patterns.ts";

/** Where a layer index was found in a module's name. */
export type LayerHit = {
  readonly index: number;
  /** The name up to and with the index, e.g. `model.layers.3`. */
  readonly layer: string;
  /** The pattern of `layersPattern` that found it; null without one. */
  readonly pattern: string | null;
};

export type LayerFilter = {
  /** The index that decides for `name`; undefined where there is none. */
  find(name: string): LayerHit | undefined;
  accepts(index: number): boolean;
};

/**
 * The filter by layer index; undefined where `layersToTransform` asks for none (null, or an empty list).
 * Without a pattern the first numbered part counts that has at least two parts before it; with patterns, the first
 * pattern that matches decides, right index or wrong.
 * Source: PEFT 0.21 `check_target_module_exists`.
 */
export function makeLayerFilter(config: ResolvedConfig, patterns: Patterns): LayerFilter | undefined {
  const { layersToTransform: layers, layersPattern } = config;
  if (layers === null || (Array.isArray(layers) && layers.length === 0)) return undefined;
  const wanted = typeof layers === "number" || typeof layers === "boolean" ? [layers] : layers;
  const indices = new Set(
    typeof wanted === "string" ? [] : [...(wanted as readonly number[] | Tuple<number>)].map(asNumber),
  );
  const accepts = (index: number): boolean => {
    if (typeof wanted === "string")
      throw failure(
        "inject",
        "TypeError",
        "wrong-operand-type",
        `layersToTransform must hold layer numbers, not the string ${JSON.stringify(wanted)}.`,
      );
    return indices.has(index);
  };
  if (!isTruthy(layersPattern)) return { find: findAnyContainer, accepts };
  const list = typeof layersPattern === "string" ? [layersPattern] : [...layersPattern!];
  return { find: (name) => findByPatterns(list, name, patterns), accepts };
}

/** Python counts true as 1 and 1.0 as 1; strings are never equal to a number. */
const asNumber = (value: unknown): number | undefined =>
  typeof value === "number" ? value : value === true ? 1 : value === false ? 0 : undefined;

/** `.*?\.[^.]*\.(?P<idx>\d+)\.` from the start of the name. */
function findAnyContainer(name: string): LayerHit | undefined {
  const first = name.indexOf(".");
  let before = first === -1 ? -1 : name.indexOf(".", first + 1);
  while (before !== -1) {
    const after = name.indexOf(".", before + 1);
    if (after === -1) return undefined;
    const hit = readIndex(name, before + 1, after, null);
    if (hit !== undefined) return hit;
    before = after;
  }
  return undefined;
}

/** `(?:^|.*?\.)<pattern>\.(?P<idx>\d+)\.` from the start of the name, for each pattern in order. */
function findByPatterns(list: readonly string[], name: string, patterns: Patterns): LayerHit | undefined {
  for (const pattern of list) {
    if (isSimple(pattern) && isPlainName(name)) {
      const hit = findSimple(pattern, name);
      if (hit !== undefined) return hit;
      continue;
    }
    const match = patterns.get(`(?:^|.*?\\.)${pattern}\\.(?P<idx>\\d+)\\.`, "layersPattern").match(name);
    if (match === null) continue;
    const digits = match.named["idx"];
    // an unparenthesised alternative may match without an index: then there is none, and later patterns do not count
    if (digits === undefined) return undefined;
    return { index: pythonInt(digits), layer: name.slice(0, match.end - 1), pattern };
  }
  return undefined;
}

function findSimple(pattern: string, name: string): LayerHit | undefined {
  for (let start = 0; start !== -1; ) {
    const dot = start + pattern.length;
    if (name.charCodeAt(dot) === 46 && simpleAt(pattern, name, start)) {
      const after = name.indexOf(".", dot + 1);
      const hit = after === -1 ? undefined : readIndex(name, dot + 1, after, pattern);
      if (hit !== undefined) return hit;
    }
    const next = name.indexOf(".", start);
    start = next === -1 ? -1 : next + 1;
  }
  return undefined;
}

function readIndex(name: string, start: number, end: number, pattern: string | null): LayerHit | undefined {
  const code = name.charCodeAt(start);
  // most parts are words: no need to look further
  if (code < 128 && (code < 48 || code > 57)) return undefined;
  const digits = name.slice(start, end);
  if (!/^\p{Nd}+$/u.test(digits)) return undefined;
  return { index: pythonInt(digits), layer: name.slice(0, end), pattern };
}

/** Python's `int` of decimal digits of any script. */
export function pythonInt(digits: string): number {
  if (/^[0-9]+$/.test(digits)) return Number(digits);
  let value = 0;
  for (const digit of digits) value = value * 10 + digitValue(digit.codePointAt(0)!);
  return value;
}

/** Decimal digits come in runs of ten in ascending order, so the distance to the start of the run tells the value. */
function digitValue(codePoint: number): number {
  let start = codePoint;
  while (/^\p{Nd}$/u.test(String.fromCodePoint(start - 1))) start--;
  return (codePoint - start) % 10;
}
