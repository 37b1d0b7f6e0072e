import type { Command } from "commander";
import {
  type Explanation,
  foldNames,
  lintSelection,
  makeExplainer,
  matrixOf,
  mergeWarnings,
  structureOf,
} from "../../selection/index.ts";
import { configFlag, loraFlags, selectionFlags } from "../adapter-flags.ts";
import { loraProblems, readAdapter } from "../adapter-request.ts";
import { throwProblems } from "../errors.ts";
import { addFlags, readFlags, toggle } from "../flags.ts";
import { renderMatrix } from "../matrix.ts";
import { namingFlag, resolveNaming } from "../naming.ts";
import { Output } from "../output.ts";
import { spelling } from "../schema-flags.ts";
import { refuseWarnings, strictFlags } from "../strict.ts";
import { printable, styled } from "../style.ts";
import { readModuleTree } from "../tree.ts";

const lora = { ...loraFlags, ...selectionFlags };
const outputFlags = { ...namingFlag, json: toggle("Print one JSON document."), ...strictFlags };

export const spell = spelling(Object.keys(lora));

export function define(command: Command): void {
  command.argument(
    "<model>",
    "directory with config.json, config.json itself, or a skeleton (.json, .json.gz)",
  );
  command.argument(
    "[modules...]",
    "names of modules, or patterns such as '*layers.3*'; default: targets and near misses",
  );
  addFlags(command, "Selection", { ...configFlag, ...lora });
  addFlags(command, "Output", outputFlags);
  command.addHelpText(
    "after",
    `
Says of each module by which rule it is a target, or which rule failed first and how near it was; without names, of all
targets and of what was nearly one, folded over layers. Then which entry took how many modules of which layer.

Examples:
  graft explain models/tiny-llama --target-modules q_proj --layers-to-transform 4,5 model.layers.3.self_attn.q_proj
  graft explain models/tiny-llama --target-modules '.*\\.(4|5)\\..*_proj' '*layers.3*'
  graft explain models/tiny-llama --target-modules q_proj,v_proj --layers "last 25%"
  graft explain models/tiny-llama --config out/dictionary/adapter_config.json
  graft explain models/tiny-llama --target-modules q_porj,v_proj --strict`,
  );
  command.action((model: string, modules: string[]) => run(model, modules, command));
}

async function run(location: string, asked: readonly string[], command: Command): Promise<void> {
  const problems: string[] = [];
  const values = readFlags(command, lora, problems);
  const { config: file } = readFlags(command, configFlag, problems);
  const { naming, strict, ...outputOptions } = readFlags(command, outputFlags, problems);
  const output = new Output(outputOptions);
  if (file === undefined) problems.push(...loraProblems(values).map(spell));
  throwProblems(problems);
  const request = await readAdapter(file, values);
  const { tree: read, warnings: treeWarnings } = await readModuleTree(location);
  const { tree, adapter } = (await resolveNaming(request, read, naming)).shown;
  const { config, compiled, warnings: adapterWarnings } = adapter;

  const source = compiled ?? config.toSelection();
  const explainer = makeExplainer(tree, source);
  const { selection, failure } = explainer;
  if (!explainer.canJudge) throw failure!;
  const lint = lintSelection(tree, source, selection);
  const warnings = [...adapterWarnings, ...mergeWarnings(selection?.warnings ?? [], lint)].map((warning) => ({
    ...warning,
    message: spell(warning.message),
  }));
  for (const message of treeWarnings) output.warn(message);
  for (const { message } of warnings) output.warn(message);
  if (failure !== undefined)
    output.warn(`PEFT refuses this configuration on this model: ${spell(failure.message)}`);
  if (config.layerReplication !== null) output.note("names are those of the model with replicated layers");

  const explanations = asked.length > 0 ? explainer.asked(asked) : explainer.all();
  const modules = explanations.map((explanation) => ({ ...explanation, reason: spell(explanation.reason) }));
  const matrix = matrixOf(tree, compiled ?? selection ?? explainer.all());
  if (strict) {
    if (!output.json) print(output, modules, asked.length > 0);
    if (failure !== undefined) throw failure;
    refuseWarnings(warnings);
  }
  output.document({
    modules: modules.map(({ failure: _failure, ...module }) => module),
    matrix,
    warnings: [...treeWarnings.map((message) => ({ code: "model", message })), ...warnings],
    ...(failure === undefined ? {} : { failure: { code: failure.code, message: failure.message } }),
  });
  if (output.json) return;
  if (!strict) print(output, modules, asked.length > 0);
  if (asked.length === 0) {
    const lines = renderMatrix(matrix);
    if (lines.length > 0) output.print("");
    for (const line of lines) output.print(line);
  }

  function print(to: Output, all: readonly Explanation[], each: boolean): void {
    if (each) for (const one of all) printOne(to, one);
    else printFolded(to, all, structureOf(tree));
  }
}

function printOne(output: Output, { name, selected, reason, r, alpha, scaling }: Explanation): void {
  const values =
    r === undefined ? "" : ` (r ${r}, alpha ${alpha}, scaling ${Number(scaling!.toPrecision(6))})`;
  const verdict = selected ? styled("green", `target${values}`) : "not a target";
  output.print(`${styled("bold", printable(name === "" ? "(the model itself)" : name))}: ${verdict}`);
  output.print(`  ${safe(reason)}`);
}

/** Lines of each kind beyond which they are only counted. */
const shownLines = 40;

function printFolded(
  output: Output,
  all: readonly Explanation[],
  structure: ReturnType<typeof structureOf>,
): void {
  const targets = all.filter(({ selected }) => selected);
  const isRefused = all.some(({ failure }) => failure !== undefined);
  output.print(`${isRefused ? "matched, if PEFT took the configuration" : "targets"}: ${targets.length}`);
  printGroups(output, targets, structure);
  const near = all.filter(isNearMiss);
  if (near.length === 0) return;
  output.print("");
  output.print(`nearly targets: ${near.length}`);
  printGroups(output, near, structure);
}

/** Of what is not taken: where one thing alone stands in the way. */
const isNearMiss = ({ selected, near }: Explanation): boolean =>
  !selected &&
  near !== undefined &&
  (near.kind === "layer" ||
    near.kind === "no-layer" ||
    near.kind === "excluded" ||
    (near.kind === "regex" && (near.before || near.after)));

function printGroups(
  output: Output,
  all: readonly Explanation[],
  structure: ReturnType<typeof structureOf>,
): void {
  const groups = new Map<string, string[]>();
  for (const { name, reason } of all) {
    const key = general(reason, name);
    const known = groups.get(key);
    if (known === undefined) groups.set(key, [name]);
    else known.push(name);
  }
  let lines = 0;
  let rest = 0;
  for (const [reason, names] of groups) {
    if (lines >= shownLines) {
      rest += names.length;
      continue;
    }
    for (const { text, count } of foldNames(names, structure)) {
      output.print(`  ${styled("bold", printable(text))}${count > 1 ? ` (${count})` : ""}`);
      lines++;
    }
    output.print(`    ${safe(reason)}`);
  }
  if (rest > 0) output.print(`  … and ${rest} more (name them, or use --json)`);
}

/** A reason without what it says of one module only. */
const general = (reason: string, name: string): string =>
  reason
    .replaceAll(`"${name}"`, "it")
    .replace(/layer index \d+ \([^)]*\)/g, "the layer index")
    .replace(/\blayer \d+ of ([^,;]*?)(?=,| is)/g, "its layer of $1");

/** Names inside of a reason come from files: control characters are escaped. */
const safe = (text: string): string =>
  text.replace(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu,
    (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`,
  );
