/** Times Graft's selection on the same names; a child of run.ts, run from a build. Reads {build, quick, repeats} from stdin. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { toConfig } from "../../test/conformance/selection-vectors.ts";
import { cases, largeTree, smallTree } from "./cases.ts";

type Library = typeof import("../../src/selection/index.ts");
type Work = { readonly build: string; readonly quick: boolean; readonly repeats: number };
const { build, quick, repeats } = JSON.parse(readFileSync(0, "utf8")) as Work;
const { selectTargets } = (await import(pathToFileURL(join(build, "selection/index.js")).href)) as Library;
const tree = quick ? smallTree() : largeTree();

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!;

const results = cases.map(({ config: fields }) => {
  const config = toConfig({ config: { ...fields } });
  const times: number[] = [];
  const savedTimes: number[] = [];
  let selection: ReturnType<typeof selectTargets> | undefined;
  for (let i = 0; i < repeats; i++) {
    const start = performance.now();
    selection = selectTargets(tree, config);
    times.push(performance.now() - start);
  }
  for (let i = 0; i < Math.min(3, repeats); i++) {
    const fresh = selectTargets(tree, config);
    const start = performance.now();
    void fresh.stateDict.length;
    savedTimes.push(performance.now() - start);
  }
  const targets = selection!.targets;
  return {
    targets: targets.length,
    ranks: fields["rank_pattern"] === undefined ? 0 : targets.reduce((sum, { r }) => sum + r, 0),
    first: times[0]!,
    median: median(times),
    stateDict: median(savedTimes),
  };
});
console.log(JSON.stringify({ modules: tree.modules.length, cases: results }));
