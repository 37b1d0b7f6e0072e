import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { findJsonError, parseJson } from "../../src/data/json-text.ts";
import { dataErrorOf } from "./support.ts";

describe("parseJson", () => {
  test.each([
    ['{"text": "a"', 13, 'a comma or "}"', "the end"],
    ['{"text": }', 10, "a value", '"}"'],
    ['{"text" "a"}', 9, "a colon", '"\\""'],
    ["{'text': 1}", 2, 'a key in double quotes or "}"', `"'"`],
    ['{"a": 1,}', 9, "a key in double quotes", '"}"'],
    ['{"a": [1 2]}', 10, 'a comma or "]"', '"2"'],
    ['{"a": "tab\there"}', 11, "an escaped character (\\n for a line break, \\t for a tab)", '"\\t"'],
    ['{"path": "C:\\dir"}', 13, "a valid escape sequence (\\\\ for a backslash)", '"\\\\"'],
    ['{"a": "open', 12, "a closing double quote", "the end"],
    ['{"a": 1} {"b": 2}', 10, "nothing more", '"{"'],
    ['{"🎉": NaN}', 7, "a value", '"N"'],
    ["hello", 1, "a value", '"h"'],
    ["[01]", 3, 'a comma or "]"', '"1"'],
    ["{'", 2, 'a key in double quotes or "}"', `"'"`],
  ])("%s", async (text, column, expected, found) => {
    const error = await dataErrorOf(() => parseJson(text, { file: "rows.jsonl", line: 7 }, "Fix it."));
    expect(error.message).toBe(
      `rows.jsonl:7:${column}: not valid JSON: expected ${expected}, found ${found}. Fix it.`,
    );
    expect(error.details).toMatchObject({ file: "rows.jsonl", line: 7, column });
    expect(error.code).toBe("bad-json");
  });

  test("counts lines in JSON of several lines", async () => {
    const error = await dataErrorOf(() =>
      parseJson('[\n {"a": 1},\n {"a": oops}\n]', { file: "a.json" }, ""),
    );
    expect(error.details).toMatchObject({ line: 3, column: 8 });
  });

  test("finds the error at any depth", () => {
    expect(findJsonError("[".repeat(200_000)).offset).toBe(200_000);
  });

  test("an invalid character is found where it was put, whatever stands around", () => {
    // "\u0001" may stand nowhere in JSON.
    fc.assert(
      fc.property(fc.json(), fc.nat(), (json, at) => {
        const position = at % (json.length + 1);
        const { offset } = findJsonError(`${json.slice(0, position)}\u0001${json.slice(position)}`);
        // A number or literal that is cut, or a backslash before it, is noticed at its own position.
        expect(offset).toBeLessThanOrEqual(position);
        expect(position - offset).toBeLessThanOrEqual(6);
      }),
    );
  });
});
