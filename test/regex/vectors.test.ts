import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { isGraftError } from "../../src/errors.ts";
import { compile } from "../../src/regex/index.ts";

/** What CPython 3.11 did with a pattern: failed to compile it, or matched a text. Indexes are code points. */
type Vector = {
  cat: string;
  p: string;
  error?: string;
  pos?: number | null;
  s?: string;
  full?: boolean;
  match?: number | null;
  groups?: (string | null)[];
  named?: Record<string, string | null>;
  warnings?: [string, string][];
};

const { python, vectors } = JSON.parse(
  gunzipSync(readFileSync(new URL("../vectors/python-re.json.gz", import.meta.url))).toString(),
) as { python: string; vectors: Vector[] };

/** Our result in the form of a vector. */
function observe({ cat, p, s }: Vector): Vector {
  try {
    const pattern = compile(p);
    const full = pattern.fullmatch(s!);
    const match = pattern.match(s!);
    const orNull = (value: string | undefined) => value ?? null;
    return {
      cat,
      p,
      s: s!,
      full: full !== null,
      match: match && Array.from(s!.slice(0, match.end)).length,
      ...(full && pattern.groupCount > 0 && { groups: full.groups.slice(1).map(orNull) }),
      ...(full &&
        Object.keys(full.named).length > 0 && {
          named: Object.fromEntries(Object.entries(full.named).map(([name, value]) => [name, orNull(value)])),
        }),
      ...(pattern.warnings.length > 0 && {
        warnings: pattern.warnings.map(({ category, message }): [string, string] => [category, message]),
      }),
    };
  } catch (error) {
    if (!isGraftError(error) || error.code !== "invalid-regex") throw error;
    return { cat, p, error: error.message, pos: error.details.position as number | null };
  }
}

describe(`agrees with Python ${python}`, () => {
  for (const category of new Set(vectors.map((vector) => vector.cat))) {
    const members = vectors.filter((vector) => vector.cat === category);
    test(`${category}: ${members.length} vectors`, () => {
      for (const vector of members) {
        const observed = observe(vector);
        if (vector.error !== undefined) {
          expect(observed, JSON.stringify(vector)).toMatchObject({ p: vector.p, pos: vector.pos });
          expect(observed.error).toBeTypeOf("string");
        } else expect(observed).toEqual(vector);
      }
    });
  }
});
