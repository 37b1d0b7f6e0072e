import type { LoraConfig } from "../adapters/index.ts";
import type { CompiledSelection, Cost, ModuleTree, Selection, Target } from "../selection/index.ts";
import { configLines } from "./config-lines.ts";
import { describeCost } from "./cost.ts";
import { describeTargets, grouped } from "./describe.ts";
import { moduleTreeView } from "./module-tree-view.ts";
import type { Output } from "./output.ts";
import { printable } from "./style.ts";
import { table } from "./table.ts";

export type SelectionReport = {
  readonly tree: ModuleTree;
  readonly selection: Selection;
  /** As PEFT saves it. */
  readonly config: LoraConfig;
  /** Where a request had to be put into PEFT's words. */
  readonly compiled: Pick<CompiledSelection, "deeper"> | undefined;
  readonly cost: Cost;
  /** Every target in a table, instead of a tree. */
  readonly list: boolean;
};

/** What a configuration selects and costs, for people. */
export function printSelection(output: Output, report: SelectionReport): void {
  const { selection, config, compiled, cost } = report;
  const { modulesToSave, trainableParameters, totalParameters } = selection;
  const all = [...selection.targets, ...selection.targetParameters];
  if (all.length > 0) {
    output.print(report.list ? targetTable(all) : targetTree(report));
    output.print("");
    output.print(
      `${grouped(all.length)} ${all.length === 1 ? "target" : "targets"}: ${describeTargets(all.map(({ name }) => printable(name)))}`,
    );
  }
  if (compiled !== undefined) {
    output.print("for PEFT:");
    for (const line of configLines(config)) output.print(`  ${line}`);
    output.print(`  (${compiled.deeper.message})`);
  }
  if (modulesToSave.length > 0) output.print(`trained as a whole: ${modulesToSave.join(", ")}`);
  if (config.bias !== "none") output.print(`biases trained: ${config.bias}`);
  const percent = ((100 * trainableParameters) / totalParameters).toFixed(4);
  output.print(
    `trainable params: ${grouped(trainableParameters)} || all params: ${grouped(totalParameters)} || trainable%: ${percent}`,
  );
  output.print("");
  output.print(describeCost(cost));
}

/** The part of the model that holds targets, folded over repeated blocks, each with its rank and alpha. */
function targetTree({ tree, selection }: SelectionReport): string {
  const { targets, targetParameters } = selection;
  const marks = new Map(targets.map((target) => [target.name, markOf(target)]));
  for (const target of targetParameters) {
    const dot = target.name.lastIndexOf(".");
    const module = target.name.slice(0, dot);
    const mark = `${target.name.slice(dot + 1)} ${markOf(target)}`;
    const known = marks.get(module);
    marks.set(module, known === undefined ? mark : `${known}, ${mark}`);
  }
  return moduleTreeView(tree, { marks, onlyMarked: true });
}

const markOf = ({ r, alpha }: Target): string => `r=${r} α=${alpha}`;

function targetTable(targets: readonly Target[]): string {
  const columns = [
    { title: "target" },
    ...["r", "alpha", "scaling", "parameters"].map((title) => ({ title, align: "right" as const })),
  ];
  return table(
    columns,
    targets.map(({ name, r, alpha, scaling, parameters }) => [
      printable(name),
      String(r),
      String(alpha),
      String(Number(scaling.toPrecision(6))),
      grouped(parameters),
    ]),
  );
}
