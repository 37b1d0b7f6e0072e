/** The fast paths of the matching rules against the definitions that they stand for. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { compile } from "../../../src/regex/index.ts";
import { Warnings } from "../../../src/selection/failure.ts";
import { resolveConfig } from "../../../src/selection/peft/config.ts";
import { makeLayerFilter } from "../../../src/selection/peft/layer-filter.ts";
import { matchesPart, PatternLookup, Patterns } from "../../../src/selection/peft/patterns.ts";
import { shrinkTargets } from "../../../src/selection/peft/shrink.ts";
import { Tails } from "../../../src/selection/peft/tails.ts";

/** Few short parts, so that matches are frequent; digits of other scripts, and parts that only look like numbers. */
const part = fc.constantFrom(
  "a",
  "b",
  "ab",
  "layers",
  "h",
  "0",
  "1",
  "12",
  "01",
  "٣",
  "𝟙",
  "1x",
  "x1",
  "q_proj",
  "a-b",
);
const name = fc.array(part, { minLength: 1, maxLength: 6 }).map((parts) => parts.join("."));
const entry = fc.oneof(name, fc.constantFrom("", ".", ".a", "a.", "..", "0.q_proj"));

test("a tail is found iff the name is an entry or ends with a dot and the entry", () => {
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 8 }), name, (entries, text) => {
      const expected = [...new Set(entries)].find((item) => text === item || text.endsWith(`.${item}`));
      expect(new Tails(entries).find(text)).toBe(expected);
    }),
    { numRuns: 2000 },
  );
});

test("a saved part is found iff (^|.*\\.)entry($|\\..*) matches", () => {
  fc.assert(
    fc.property(entry, name, (item, text) => {
      const expected = compile(`(^|.*\\.)${item}($|\\..*)`).match(text) !== null;
      expect(matchesPart(new Patterns(new Warnings()), item, text, "modulesToSave")).toBe(expected);
    }),
    { numRuns: 2000 },
  );
});

test("a rank key is taken iff (.*\\.)?(key)$ matches", () => {
  fc.assert(
    fc.property(entry, name, (key, text) => {
      const expected = compile(`(.*\\.)?(${key})$`).match(text) !== null;
      expect(
        new PatternLookup(new Patterns(new Warnings()), new Map([[key, 3]]), "rankPattern").keyFor(text) !==
          null,
      ).toBe(expected);
    }),
    { numRuns: 2000 },
  );
});

test("without a pattern, the layer index is the one of .*?\\.[^.]*\\.(?P<idx>\\d+)\\.", () => {
  const filter = makeLayerFilter(
    resolveConfig({ layersToTransform: [0] }, new Warnings()),
    new Patterns(new Warnings()),
  )!;
  const definition = compile(".*?\\.[^.]*\\.(?P<idx>\\d+)\\.");
  fc.assert(
    fc.property(name, (text) => {
      const match = definition.match(text);
      const hit = filter.find(text);
      expect(hit?.layer).toBe(match === null ? undefined : text.slice(0, match.end - 1));
    }),
    { numRuns: 3000 },
  );
});

test("with a pattern, the layer index is the one of (?:^|.*?\\.)pattern\\.(?P<idx>\\d+)\\.", () => {
  fc.assert(
    fc.property(fc.oneof(name, fc.constantFrom(".", "..", "a.")), name, (pattern, text) => {
      const config = resolveConfig({ layersToTransform: [0], layersPattern: pattern }, new Warnings());
      const hit = makeLayerFilter(config, new Patterns(new Warnings()))!.find(text);
      const match = compile(`(?:^|.*?\\.)${pattern}\\.(?P<idx>\\d+)\\.`).match(text);
      expect(hit?.layer).toBe(match === null ? undefined : text.slice(0, match.end - 1));
    }),
    { numRuns: 3000 },
  );
});

test("digits of every script count as Python's int reads them", () => {
  const filter = makeLayerFilter(
    resolveConfig({ layersToTransform: [0] }, new Warnings()),
    new Patterns(new Warnings()),
  )!;
  // Python: [int(c) for c in "٣५𝟙𝟎𝟿９"] == [3, 5, 1, 0, 9, 9]
  expect([..."٣५𝟙𝟎𝟿９"].map((digit) => filter.find(`a.b.${digit}.c`)?.index)).toEqual([3, 5, 1, 0, 9, 9]);
  expect(filter.find("a.b.1٣.c")?.index).toBe(13);
});

/** PEFT's own loop, statement by statement. */
function shrinkAsPeft(targets: ReadonlySet<string>, names: readonly string[]): Set<string> {
  const tailsOf = (text: string): string[] => {
    const parts = text.split(".");
    return parts.map((_, i) => parts.slice(i).join(".")).reverse();
  };
  const rest = names.filter(
    (text) => !targets.has(text) && ![...targets].some((target) => text.endsWith(`.${target}`)),
  );
  const taken = new Set(rest.flatMap(tailsOf));
  const required = new Set<string>();
  const order = (a: string[], b: string[]): number => {
    for (let i = 0; i < Math.min(a.length, b.length); i++) if (a[i] !== b[i]) return a[i]! < b[i]! ? -1 : 1;
    return a.length - b.length;
  };
  for (const tails of [...targets].map(tailsOf).sort(order)) {
    const item = tails[tails.length - 1]!;
    for (const tail of tails) {
      if (required.has(tail) || taken.has(tail)) continue;
      if (![...required].some((known) => item.endsWith(`.${known}`))) {
        required.add(tail);
        break;
      }
    }
  }
  const result = required.size === 0 ? targets : required;
  return new Set(result.size < targets.size ? result : targets);
}

test("long lists are condensed as PEFT condenses them", () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(name, { minLength: 1, maxLength: 12 }),
      fc.array(name, { maxLength: 12 }),
      (list, others) => {
        const targets = new Set(list);
        const names = ["", ...new Set([...others, ...list.slice(0, 6)])];
        expect([...shrinkTargets(targets, names)].sort()).toEqual([...shrinkAsPeft(targets, names)].sort());
      },
    ),
    { numRuns: 3000 },
  );
});
