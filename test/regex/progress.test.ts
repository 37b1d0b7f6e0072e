import fc from "fast-check";
import { expect, test } from "vitest";
import { compile } from "../../src/regex/index.ts";
import { patterns } from "./patterns.ts";

const lines = fc.string({ unit: fc.constantFrom("a", "b", "-", "😀"), maxLength: 9 });

test.each([
  ["model\\.layers\\.4", "model.layers.4.mlp", 14],
  ["model\\.layers\\.4\\.mlp", "model.layers.4", 14],
  ["layers\\.[45]", "layers4", 6],
  ["a😀b", "a😀😀", 3],
  ["(?i)MODEL", "modem", 4],
  ["a$", "ab", 1],
  ["", "a", 0],
  [".*x", "abc", 3],
])("a text matching %j may begin as %j does, up to %i", (pattern, text, length) => {
  expect(compile(pattern).progress(text)?.viable).toBe(length);
});

test.each([
  [".*\\.layers\\.[45]\\.self_attn\\.[qv]_proj", "model.layers.3.self_attn.q_proj", "model.layers."],
  [
    ".*\\.layers\\.[45]\\.self_attn\\.[qv]_proj",
    "model.layers.4.self_attn.k_proj",
    "model.layers.4.self_attn.",
  ],
  [".*\\.layers\\.[45]\\..*_proj", "model.layers.4.mlp.gate", "model.layers.4.mlp.gate"],
  ["(encoder|decoder)\\.q", "encoder.v", "encoder."],
  ["x", "abc", ""],
])("most of %j is used up by %j at %j", (pattern, text, prefix) => {
  expect(text.slice(0, compile(pattern).progress(text)!.deepest)).toBe(prefix);
});

test("patterns that need backtracking leave it open", () => {
  for (const pattern of ["(?!a)b", "(a)\\1", "(?>a*)b", "a*+b"])
    expect(compile(pattern).progress("b")).toBeUndefined();
});

test("a prefix of a matching text fits whole", () => {
  fc.assert(
    fc.property(patterns({ regular: true }), lines, fc.nat(), (pattern, text, cut) => {
      const compiled = compile(pattern);
      fc.pre(compiled.fullmatch(text) !== null);
      const characters = [...text];
      const prefix = characters.slice(0, cut % (characters.length + 1)).join("");
      expect(compiled.progress(prefix)?.viable).toBe(prefix.length);
    }),
    { numRuns: 3000 },
  );
});

test("nothing that begins with more than the prefix matches", () => {
  fc.assert(
    fc.property(patterns({ regular: true }), lines, lines, (pattern, text, rest) => {
      const compiled = compile(pattern);
      const { viable: length, deepest } = compiled.progress(text)!;
      expect(deepest).toBeLessThanOrEqual(length);
      fc.pre(length < text.length);
      const [next] = text.slice(length);
      const longer = text.slice(0, length) + String.fromCodePoint(text.codePointAt(length)!) + rest;
      expect(next).toBeDefined();
      expect(compiled.fullmatch(longer)).toBeNull();
    }),
    { numRuns: 3000 },
  );
});
