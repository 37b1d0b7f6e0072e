import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { plainWeightMap } from "../../src/checkpoint/weight-map.ts";

const map = { "a.weight": "1.safetensors", "b.0.weight": "1.safetensors", "b.1.weight": "2.safetensors" };
const index = { metadata: { total_size: 12 }, weight_map: map };

describe("plainWeightMap", () => {
  test.each([undefined, 1, "\t"])("reads what JSON.parse reads, indented by %j", (space) =>
    expect(plainWeightMap(JSON.stringify(index, null, space))).toMatchObject({
      names: Object.keys(map),
      files: Object.values(map),
    }),
  );

  test.each([
    ["no map", '{"metadata":{}}'],
    ["an empty one", '{"weight_map":{}}'],
    ["names out of order", '{"weight_map":{"b":"f","a":"f"}}'],
    ["a name twice", '{"weight_map":{"a":"f","a":"g"}}'],
    ["an escape", '{"weight_map":{"a\\u0062":"f"}}'],
    ["a control character", '{"weight_map":{"a\nb":"f"}}'],
    ["a number for a file", '{"weight_map":{"a":1}}'],
    ["a comma too many", '{"weight_map":{"a":"f",}}'],
    ["a map that does not end", '{"weight_map":{"a":"f"'],
    ["a map inside another member", '{"metadata":{"weight_map":{"a":"f"}}}'],
    ["two maps", '{"weight_map":{"a":"f"},"weight_map":{"b":"f"}}'],
    ["text behind it", '{"weight_map":{"a":"f"}} x'],
    ["a list", '["weight_map",{"a":"f"}]'],
    ["no colon", '{"weight_map" {"a":"f"}}'],
  ])("leaves to others: %s", (_, text) => expect(plainWeightMap(text)).toBeUndefined());

  test("accepts nothing that JSON.parse does not, and reads the same", () => {
    const text = JSON.stringify(index);
    const characters = fc.constantFrom(...'{}[]",:\\ab \n1', "");
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(text.length), characters), { maxLength: 3 }), (edits) => {
        let edited = text;
        for (const [at, character] of edits) edited = edited.slice(0, at) + character + edited.slice(at + 1);
        const rows = plainWeightMap(edited);
        if (rows === undefined) return;
        const { weight_map: expected } = JSON.parse(edited) as typeof index;
        expect([rows.names, rows.files]).toEqual([Object.keys(expected), Object.values(expected)]);
      }),
      { numRuns: 3000 },
    );
  });
});
