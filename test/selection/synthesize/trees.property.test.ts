/** Trees that no model has: numbers anywhere, names that end others, characters that mean something in a regex. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { SelectionError } from "../../../src/errors.ts";
import { type ModuleInfo, type ModuleTree, selectTargets } from "../../../src/selection/index.ts";
import { synthesize } from "../../../src/selection/synthesize/index.ts";

const part = fc.constantFrom(
  "a",
  "b",
  "ab",
  "layers",
  "0",
  "1",
  "2",
  "12",
  "01",
  "x1",
  "a-b",
  "q_proj",
  "é",
  "٣",
  "a+",
  "#",
);
const path = fc.array(part, { minLength: 1, maxLength: 5 });

function makeTree(paths: readonly (readonly string[])[], modelType: string): ModuleTree {
  const root = new Map<string, Node>();
  type Node = Map<string, Node>;
  for (const parts of paths) {
    let node: Node = root;
    for (const own of parts) {
      if (!node.has(own)) node.set(own, new Map());
      node = node.get(own)!;
    }
  }
  const modules: ModuleInfo[] = [];
  const add = (name: string, children: Node): void => {
    const isLeaf = children.size === 0;
    modules.push({
      name,
      className: isLeaf ? "Linear" : "Block",
      kind: isLeaf ? "linear" : "module",
      in: isLeaf ? 4 : null,
      out: isLeaf ? 4 : null,
      parameters: isLeaf ? [["weight", [4, 4]]] : [],
    });
    for (const [own, below] of children) add(name === "" ? own : `${name}.${own}`, below);
  };
  add("", root);
  return {
    name: "random",
    modelType,
    className: "Random",
    config: { modelType },
    modules,
    inputEmbeddings: null,
    outputEmbeddings: null,
    seqClsHeads: [],
    tiedWeights: [],
    tiedWithEmbedding: [],
    duplicateModules: [],
    numParameters: 16 * modules.filter(({ kind }) => kind === "linear").length,
    isPretrainedModel: true,
  };
}

const problem = fc
  .tuple(fc.array(path, { minLength: 1, maxLength: 60 }), fc.constantFrom("random", "mixtral"))
  .map(([paths, modelType]) => makeTree(paths, modelType))
  .chain((tree) => {
    const names = tree.modules.filter(({ kind }) => kind === "linear").map(({ name }) => name);
    return fc.tuple(
      fc.constant(tree),
      fc.subarray(names, { minLength: 1 }),
      fc.array(fc.constantFrom(2, 4, 8), { minLength: names.length, maxLength: names.length }),
    );
  });

test("any modules of any tree, with any ranks", () => {
  fc.assert(
    fc.property(problem, ([tree, wanted, ranks]) => {
      const values = new Map(wanted.map((name, i) => [name, { r: ranks[i]!, alpha: 8 }]));
      let config: ReturnType<typeof synthesize>["config"];
      try {
        config = synthesize(tree, values).config;
      } catch (error) {
        // without regexes, a name that ends another one can be out of reach
        if (
          tree.modelType === "mixtral" &&
          error instanceof SelectionError &&
          error.code === "not-expressible"
        )
          return;
        throw error;
      }
      const found = selectTargets(tree, config).targets.map(({ name, r }) => [name, r]);
      const expected = tree.modules
        .filter(({ name }) => values.has(name))
        .map(({ name }) => [name, values.get(name)!.r]);
      expect(found, JSON.stringify(config)).toEqual(expected);
    }),
    { numRuns: 400 },
  );
});
