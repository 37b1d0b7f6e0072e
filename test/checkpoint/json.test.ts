import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { readJson, readJsonIfPresent } from "../../src/checkpoint/index.ts";
import { JsonSyntaxError, parseStrictJson, toPlain } from "../../src/checkpoint/strict-json.ts";
import { failure, memoryStore } from "./helpers.ts";

const read = (text: string | Uint8Array) => readJson(memoryStore({ "config.json": text }), "config.json");

describe("readJson", () => {
  test("duplicate keys, large integers, a byte order mark", async () => {
    expect(await read('\ufeff{"a": 1, "a": 2, "max": 1000000000000000019884624838656}')).toEqual({
      a: 2,
      max: 1e30,
    });
  });

  test("NaN and Infinity, as Python writes them", async () => {
    expect(
      await read('{"limit": [0.0, Infinity, -Infinity, NaN], "n": 123456789012345678901234567890}'),
    ).toEqual({
      limit: [0, Infinity, -Infinity, Number.NaN],
      n: 1.2345678901234568e29,
    });
  });

  test("mistakes are given with file, line and column", async () => {
    const error = await failure(read('{\n  "a": 1,\n  "b": tru\n}'));
    expect(error.message).toBe(
      "config.json: not valid JSON at line 3, column 8: a value should be here. Correct the file, or download it again.",
    );
    expect(error.details).toEqual({ file: "config.json", line: 3, column: 8 });
  });

  test.each([
    ["", "line 1, column 1: the text ends where a value should be"],
    ['{"a"}', "line 1, column 5: a ':' should be here"],
    ['{"a":1 "b"}', "line 1, column 8: a ',' or '}' should be here"],
    ['["a\n"]', "line 1, column 4: a control character inside a string must be escaped"],
    ['["abc', "line 1, column 2: the string that starts here does not end"],
    ['["a\\qb"]', "line 1, column 4: an unknown escape inside a string"],
    ["[1] 2", "line 1, column 5: unexpected text after the end of the JSON value"],
  ])("%j", async (text, message) => {
    expect((await failure(read(text))).message).toContain(message);
  });

  test("a missing file names the closest, or is undefined where it may be missing", async () => {
    const store = memoryStore({ "config.json": "{}" });
    const error = await failure(readJson(store, "confg.json"));
    expect(error.code).toBe("missing-file");
    expect(error.message).toBe("model: there is no confg.json. Closest: config.json.");
    expect(await readJsonIfPresent(store, "generation_config.json")).toBeUndefined();
    expect(await readJsonIfPresent(store, "config.json")).toEqual({});
  });

  test.each([
    ["html", "<html>Not found</html>"],
    ["git-lfs-pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"],
    ["invalid-json", Uint8Array.of(0x7b, 0xff, 0x7d)],
  ])("%s instead of JSON", async (code, contents) => {
    expect((await failure(read(contents))).code).toBe(code);
  });
});

describe("parseStrictJson", () => {
  const strict = (text: string) => {
    try {
      return { value: toPlain(parseStrictJson(text, { allowLoneSurrogates: true })) };
    } catch (error) {
      if (!(error instanceof JsonSyntaxError)) throw error;
      expect(error.index).toBeLessThanOrEqual(text.length);
      return { error: true };
    }
  };
  const native = (text: string) => {
    try {
      return { value: JSON.parse(text) };
    } catch {
      return { error: true };
    }
  };

  test("gives what JSON.parse gives, for any JSON and for any mutation of it", () => {
    fc.assert(
      fc.property(
        fc.json({ maxDepth: 4 }),
        fc.nat(),
        fc.constantFrom(...'{}[]",:\\ \n0123456789-+.eEu\u0001ntf', ""),
        (json, at, insert) => {
          expect(strict(json)).toEqual(native(json));
          const i = at % (json.length + 1);
          const mutated = json.slice(0, i) + insert + json.slice(i + (at % 2));
          expect(strict(mutated)).toEqual(native(mutated));
        },
      ),
      { numRuns: 3000 },
    );
  });

  test("keeps duplicates and exact integers", () => {
    expect(parseStrictJson('{"a":18446744073709551615,"a":9007199254740993,"b":9007199254740991}')).toEqual({
      keys: ["a", "a", "b"],
      values: [18446744073709551615n, 9007199254740993n, 9007199254740991],
    });
  });
});
