import { expect, test } from "vitest";
import {
  type ModuleTree,
  parseSkeleton,
  type SelectionConfig,
  selectTargets,
} from "../../../src/selection/index.ts";
import { makeMoeTree } from "./moe-tree.ts";

const moe = makeMoeTree(3, 4);
const huge = "x".repeat(10_000_000);

test.each<[string, SelectionConfig]>([
  ["targetModules", { targetModules: `${huge}+` }],
  ["excludeModules", { targetModules: ["q_proj"], excludeModules: huge }],
  ["rankPattern", { targetModules: ["q_proj"], rankPattern: { [`${huge}+`]: 4 } }],
  ["alphaPattern", { targetModules: ["q_proj"], alphaPattern: { [`${huge}+`]: 4 } }],
  ["layersPattern", { targetModules: ["q_proj"], layersToTransform: [0], layersPattern: [`${huge}+`] }],
  ["modulesToSave", { targetModules: ["q_proj"], modulesToSave: [`${huge}+`] }],
])("a 10 MB pattern in %s is refused, and the option named", (option, config) => {
  let thrown: unknown;
  try {
    selectTargets(moe, config);
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toMatchObject({ code: "regex-too-large", details: { option } });
  expect((thrown as Error).message).toMatch(new RegExp(`^${option}: .*at most 500,000 characters`));
  expect((thrown as Error).message.length).toBeLessThan(400);
});

test("10 MB of literal names is only a list", () => {
  const targetModules = Array.from(
    { length: 200_000 },
    (_, i) => `model.layers.${i}.self_attn.no_such_projection`,
  );
  expect(selectTargets(moe, { targetModules: [...targetModules, "q_proj"] }).targets).toHaveLength(3);
});

test("names of 100 kB are matched like others", () => {
  const long = `model.layers.0.${"a".repeat(100_000)}`;
  const tree: ModuleTree = parseSkeleton({
    modules: [
      ["", "M", "module", null, null, []],
      ["model", "M", "module", null, null, []],
      ["model.layers", "L", "modulelist", null, null, []],
      ["model.layers.0", "L", "module", null, null, []],
      [long, "L", "module", null, null, []],
      [`${long}.q_proj`, "Linear", "linear", 4, 4, [["weight", [4, 4]]]],
    ],
  });
  for (const targetModules of [["q_proj"], ".*q_proj", "(?=(a+)+|m).*(a+)+\\.q_proj", "all-linear"])
    expect(selectTargets(tree, { targetModules }).targets.map(({ name }) => name)).toEqual([
      `${long}.q_proj`,
    ]);
  expect(selectTargets(tree, { targetModules: ["q_proj"], layersToTransform: [0] }).targets).toHaveLength(1);
  expect(() => selectTargets(tree, { targetModules: "(a+)+$" })).toThrow("matches");
});
