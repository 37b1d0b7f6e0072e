import type { Command } from "commander";
import {
  estimateCost,
  lintSelection,
  mergeWarnings,
  type Selection,
  type SelectionDiff,
  selectTargets,
} from "../../selection/index.ts";
import { configFlag, loraFlags, selectionFlags } from "../adapter-flags.ts";
import { loraProblems, readAdapter } from "../adapter-request.ts";
import { costFlags, costJson, costOptions } from "../cost.ts";
import { targetJson } from "../describe.ts";
import { throwProblems } from "../errors.ts";
import { addFlags, readFlags, text, toggle } from "../flags.ts";
import { type NamedAdapter, namingFlag, resolveNaming, selectionOf } from "../naming.ts";
import { Output } from "../output.ts";
import { spelling } from "../schema-flags.ts";
import { printSelection } from "../selection-report.ts";
import { refuseWarnings, strictFlags } from "../strict.ts";
import { readModuleTree } from "../tree.ts";

const lora = { ...loraFlags, ...selectionFlags };
const diffFlag = {
  diff: text("Show what another configuration selects differently: adapter_config.json, or graft.yaml.", {
    placeholder: "file",
  }),
};
const outputFlags = {
  ...namingFlag,
  list: toggle("List every target in a table, instead of a tree."),
  python: toggle("Print the Python code that does the same with PEFT."),
  json: toggle("Print one JSON document."),
  ...strictFlags,
};

export const spell = spelling(Object.keys({ ...lora, ...costFlags }));

export function define(command: Command): void {
  command.argument("<model>", "directory, config.json, .safetensors file, skeleton, or org/name on the Hub");
  addFlags(command, "Selection", { ...configFlag, ...diffFlag, ...lora });
  addFlags(command, "Cost", costFlags);
  addFlags(command, "Output", outputFlags);
  command.addHelpText(
    "after",
    `
Selects exactly what Hugging Face PEFT 0.21 selects. No weights are read.
What PEFT cannot say (--layers, globs, !names) is compiled to a configuration that it can read: see --json, --python.

Examples:
  graft select models/tiny-llama --target-modules q_proj,v_proj --layers "last 2"
  graft select models/tiny-llama --target-modules '.*\\.(4|5)\\..*_proj' --r 16 --lora-alpha 32
  graft select models/tiny-llama --target-modules 'all-linear,!down_proj' --python
  graft select models/tiny-llama --config out/dictionary/adapter_config.json
  graft select models/tiny-llama --config a.json --diff b.json
  graft select microsoft/Florence-2-base --target-modules qkv,q_proj --naming remote-code`,
  );
  command.action((model: string) => run(model, command));
}

type Warning = {
  readonly code: string;
  readonly message: string;
  readonly details?: Record<string, unknown>;
};

async function run(location: string, command: Command): Promise<void> {
  const problems: string[] = [];
  const values = readFlags(command, lora, problems);
  const { config: file } = readFlags(command, configFlag, problems);
  const { diff: otherFile } = readFlags(command, diffFlag, problems);
  const shape = readFlags(command, costFlags, problems);
  const {
    naming,
    list = false,
    python = false,
    strict = false,
    ...rest
  } = readFlags(command, outputFlags, problems);
  const output = new Output(rest);
  if (file === undefined) problems.push(...loraProblems(values).map(spell));
  throwProblems(problems);

  const request = await readAdapter(file, values);
  const otherRequest = otherFile === undefined ? undefined : await readAdapter(otherFile, {});
  const { tree: read, warnings: treeWarnings, source } = await readModuleTree(location);
  const { native, shown, layout } = await resolveNaming(request, read, naming);
  const { tree, adapter, deeper } = shown;
  const { config, compiled } = adapter;
  const selection = selectionOf(shown);
  const warnings = await warningsOf(shown, selection, file !== undefined);
  for (const message of treeWarnings) output.warn(message);
  for (const { message } of warnings) output.warn(message);
  if (strict) refuseWarnings(warnings);

  const diff = otherRequest && (await diffOf(shown, (await resolveNaming(otherRequest, read, naming)).shown));
  // A saved adapter's configuration is for inference: its adapters are frozen. What training them costs is asked here.
  const trained = config.inferenceMode
    ? selectTargets(tree, config.with({ inferenceMode: false }).toSelection())
    : selection;
  if (trained !== selection)
    output.note(
      "inference_mode is true, as in every saved adapter, so PEFT would load it frozen; graft train trains it",
    );
  // costs are known of the native modules
  const costly =
    layout === undefined
      ? trained
      : selectTargets(read, native.adapter.config.with({ inferenceMode: false }).toSelection());
  const cost = estimateCost(read, costly, await costOptions(shape, read, location));
  const final = config.with({
    ...selection.config,
    baseModelNameOrPath: config.baseModelNameOrPath ?? tree.name,
  });
  const snippet = python
    ? (await import("../../adapters/python-snippet.ts")).toPython(config, {
        className: layout?.python.className ?? tree.className,
        loading: layout?.python.loading,
        location,
      })
    : undefined;
  if (output.json) {
    const { matrixOf } = await import("../../selection/explain/matrix.ts");
    const { targets, targetParameters, modulesToSave, trainableParameters, totalParameters } = selection;
    output.document({
      model: { modelType: tree.modelType, className: tree.className, source },
      naming: layout?.naming ?? "native",
      targets: targets.map(targetJson),
      targetParameters: targetParameters.map(targetJson),
      modulesToSave,
      trainableParameters,
      totalParameters,
      config: final.toJSON(),
      ...(compiled && { form: compiled.form }),
      ...((compiled ?? deeper) && { deeper: compiled?.deeper ?? deeper }),
      cost: costJson(cost),
      matrix: matrixOf(tree, compiled ?? selection),
      ...(diff && { diff: (await import("../diff.ts")).diffJson(diff) }),
      ...(snippet !== undefined && { python: snippet }),
      warnings: [...treeWarnings.map((message) => ({ code: "model", message })), ...warnings],
    });
    return;
  }
  if (snippet !== undefined) return output.write(snippet);
  if (diff !== undefined) {
    const { renderDiff } = await import("../diff.ts");
    for (const line of renderDiff(diff, { a: file ?? "the flags", b: otherFile! })) output.print(line);
    return;
  }
  const said = compiled ?? (deeper && { deeper });
  printSelection(output, { tree, selection: trained, config: final, compiled: said, cost, list });
}

async function diffOf({ tree, adapter }: NamedAdapter, other: NamedAdapter): Promise<SelectionDiff> {
  const { diffSelections } = await import("../../selection/explain/diff.ts");
  // a saved adapter is for inference, its parameters frozen: what training would train is compared
  const [left, right] = [adapter, other.adapter].map(({ config }) =>
    config.with({ inferenceMode: false }).toSelection(),
  );
  return diffSelections(tree, left!, right!);
}

/** What is worth knowing about a configuration on this model; without duplicates, options as flags. */
async function warningsOf(
  { tree, adapter: { config, compiled, warnings } }: NamedAdapter,
  selection: Selection,
  isFile: boolean,
): Promise<Warning[]> {
  const lint = lintSelection(tree, compiled ?? config.toSelection(), selection);
  const all: Warning[] = [...warnings, ...mergeWarnings(selection.warnings, lint)];
  if (isFile && compiled === undefined) {
    const { versionDifferences } = await import("../../selection/versions/index.ts");
    const { message, version, differs } = versionDifferences(tree, config.toSelection(), config.peftVersion);
    if (message !== "")
      all.push({ code: differs ? "rules-changed" : "rules-unknown", message, details: { version } });
  }
  return all.map(({ code, message, details }) => ({
    code,
    message: spell(message),
    ...(details && { details }),
  }));
}
