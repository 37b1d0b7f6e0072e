import { expect, test } from "vitest";
import { parseSkeleton, selectTargets } from "../../src/selection/index.ts";

const linear = (name: string) => [name, "Linear", "linear", 4, 4, [["weight", [4, 4]]]];
const skeleton = (...rows: unknown[]) => ({ name: "tiny", model_type: "x", modules: rows });

test.each([
  [null, "expected a JSON object, got null"],
  [{}, 'expected a non-empty array in "modules", got nothing'],
  [skeleton(["", "M"]), 'in row 0 of "modules"'],
  [skeleton(["", "M", "teapot", null, null, []]), 'got "teapot"'],
  [skeleton(["", "M", "module", null, null, {}]), "expected an array of [parameter, shape]"],
])("malformed skeleton %j", (json, text) => {
  expect(() => parseSkeleton(json)).toThrow(text);
});

test("a module without its parent is refused", () => {
  const tree = parseSkeleton(skeleton(["", "M", "module", null, null, []], linear("a.b")));
  expect(() => selectTargets(tree, { targetModules: ["b"] })).toThrow(
    'Module "a.b" does not follow its parent "a"',
  );
});

test("the names of Object.prototype are no model types", () => {
  const tree = parseSkeleton({
    ...skeleton(["", "M", "module", null, null, []], linear("q")),
    model_type: "constructor",
  });
  expect(() => selectTargets(tree, {})).toThrow('no default target modules for model type "constructor"');
});

test("snake case of the file becomes camel case, and a missing embedding is null", () => {
  const tree = parseSkeleton({
    ...skeleton(
      ["", "M", "module", null, null, []],
      ["c", "Conv2d", "conv2d", 3, 8, [["weight", [8, 3, 2, 2]]], { kernel_size: [2, 2], groups: 1 }],
    ),
    config: { tie_word_embeddings: false },
  });
  expect(tree.modules[1]).toMatchObject({
    className: "Conv2d",
    in: 3,
    out: 8,
    extra: { kernelSize: [2, 2], groups: 1 },
  });
  expect(tree).toMatchObject({
    inputEmbeddings: null,
    config: { tieWordEmbeddings: false },
    isPretrainedModel: true,
  });
});
