import type { Command } from "commander";
import type { LoraConfig } from "../../adapters/index.ts";
import { type Selection, selectTargets, type Target } from "../../selection/index.ts";
import {
  configFlag,
  loraFlags,
  loraProblems,
  readAdapter,
  resolveAdapter,
  selectionFlags,
} from "../adapter-flags.ts";
import { bytes, describeTargets, grouped, targetJson } from "../describe.ts";
import { throwProblems } from "../errors.ts";
import { addFlags, readFlags, toggle } from "../flags.ts";
import { Output } from "../output.ts";
import { spelling } from "../schema-flags.ts";
import { table } from "../table.ts";
import { readModuleTree } from "../tree.ts";

const lora = { ...loraFlags, ...selectionFlags };
const outputFlags = { json: toggle("Print one JSON document.") };

export const spell = spelling(Object.keys(lora));

export function define(command: Command): void {
  command.argument(
    "<model>",
    "directory with config.json, config.json itself, or a skeleton (.json, .json.gz)",
  );
  addFlags(command, "Selection", { ...configFlag, ...lora });
  addFlags(command, "Output", outputFlags);
  command.addHelpText(
    "after",
    `
Selects exactly what Hugging Face PEFT 0.21 selects. No weights are read. What PEFT cannot say (globs, !names, --layers,
files with groups) is compiled to a configuration that PEFT reads.

Examples:
  graft select models/tiny-llama --target-modules q_proj,v_proj --layers-to-transform 4,5
  graft select models/tiny-llama --target-modules '.*\\.(4|5)\\..*_proj' --r 16 --lora-alpha 32
  graft select models/tiny-llama --target-modules all-linear --exclude-modules down_proj --json
  graft select models/tiny-llama --target-modules '**.self_attn.*,!o_proj' --layers "last 25%"
  graft select models/tiny-llama --config out/dictionary/adapter_config.json`,
  );
  command.action((model: string) => run(model, command));
}

async function run(location: string, command: Command): Promise<void> {
  const problems: string[] = [];
  const values = readFlags(command, lora, problems);
  const { config: file } = readFlags(command, configFlag, problems);
  const output = new Output(readFlags(command, outputFlags, problems));
  if (file === undefined) problems.push(...loraProblems(values).map(spell));
  throwProblems(problems);
  const request = await readAdapter(file, values);
  const { tree, warnings: treeWarnings } = await readModuleTree(location);
  const { config, warnings: adapterWarnings } = resolveAdapter(request, tree);
  const selection = selectTargets(tree, config.toSelection());
  const warnings = [
    ...treeWarnings.map((message) => ({ code: "model", message })),
    ...adapterWarnings,
    ...selection.warnings.map(({ code, message }) => ({ code, message })),
  ].map(({ code, message }) => ({ code, message: spell(message) }));
  for (const { message } of warnings) output.warn(message);
  // A saved adapter's configuration is for inference: its adapters are frozen. What training them costs is asked here.
  const trained = config.inferenceMode
    ? selectTargets(tree, config.with({ inferenceMode: false }).toSelection())
    : selection;
  const cost = costOf(trained);
  if (trained !== selection)
    output.note(
      "inference_mode is true, as in every saved adapter, so PEFT would load it frozen; graft train trains it",
    );
  const final = config.with({
    ...selection.config,
    baseModelNameOrPath: config.baseModelNameOrPath ?? tree.name,
  });
  const { modulesToSave, targetParameters, trainableParameters, totalParameters } = selection;
  output.document({
    targets: selection.targets.map(targetJson),
    targetParameters: targetParameters.map(targetJson),
    modulesToSave,
    trainableParameters,
    totalParameters,
    config: final.toJSON(),
    cost,
    warnings,
  });
  if (!output.json) printSelection(output, trained, cost, final);
}

/** Bytes in float32, as adapters are trained and saved. */
function costOf(selection: Selection) {
  const adapter = selection.stateDict.reduce((sum, [, shape]) => sum + shape.reduce((a, b) => a * b, 1), 0);
  const trained = selection.trainableParameters;
  return {
    trainableParameters: trained,
    adapterParameters: adapter,
    adapterBytes: 4 * adapter,
    gradientBytes: 4 * trained,
    optimizerBytes: 8 * trained, // AdamW: mean and mean square of every gradient
    trainableFraction: trained / selection.totalParameters,
  };
}

function printSelection(
  output: Output,
  selection: Selection,
  cost: ReturnType<typeof costOf>,
  config: LoraConfig,
): void {
  const { targets, targetParameters, modulesToSave, trainableParameters, totalParameters } = selection;
  const all = [...targets, ...targetParameters];
  if (all.length > 0) {
    const columns = [
      { title: "target" },
      ...["r", "alpha", "scaling", "parameters"].map((title) => ({ title, align: "right" as const })),
    ];
    output.print(table(columns, all.map(row)));
    output.print("");
    output.print(`targets: ${describeTargets(all.map(({ name }) => name))}`);
  }
  if (modulesToSave.length > 0) output.print(`trained as a whole: ${modulesToSave.join(", ")}`);
  if (config.bias !== "none") output.print(`biases trained: ${config.bias}`);
  const percent = (100 * cost.trainableFraction).toFixed(4);
  output.print(
    `trainable params: ${grouped(trainableParameters)} || all params: ${grouped(totalParameters)} || trainable%: ${percent}`,
  );
  output.print(
    `adapter file ${bytes(cost.adapterBytes)}, optimizer state ${bytes(cost.optimizerBytes)}, gradients ${bytes(cost.gradientBytes)}`,
  );
}

const row = ({ name, r, alpha, scaling, parameters }: Target): string[] => [
  name,
  String(r),
  String(alpha),
  String(Number(scaling.toPrecision(6))),
  grouped(parameters),
];
