import { stat } from "node:fs/promises";
import { dirname } from "node:path";
import type { Command } from "commander";
import { LoraConfig, type LoraConfigOptions, olderTree, toPython } from "../../adapters/index.ts";
import { writeFileAtomic } from "../../checkpoint/node.ts";
import { AdapterError, listProblems } from "../../errors.ts";
import { olderLayoutOf } from "../../models/older-layouts.ts";
import type { OlderLayout } from "../../nn/index.ts";
import { type ModuleTree, type SelectionConfig, type Synthesis, synthesize } from "../../selection/index.ts";
import { configLines } from "../config-lines.ts";
import { describeTargets, grouped, targetJson } from "../describe.ts";
import { throwProblems } from "../errors.ts";
import { addFlags, number, readFlags, text, toggle } from "../flags.ts";
import { layoutNamed, type Naming, namingFlag } from "../naming.ts";
import { Output } from "../output.ts";
import { spelling } from "../schema-flags.ts";
import { readModuleTree } from "../tree.ts";
import { readWantedModules, type WantedModules } from "../wanted-modules.ts";

const flags = {
  names: text(
    "File with the modules: one name per line, a JSON array, or a JSON object from name to rank or to " +
      '{"r": …, "lora_alpha": …}; - is standard input.',
    { placeholder: "file" },
  ),
  r: number("Rank of modules for which the file gives none. Default: 8.", {}, (n) =>
    Number.isSafeInteger(n) && n >= 1 ? undefined : "must be a whole number of at least 1",
  ),
  loraAlpha: number("Alpha of modules for which the file gives none. Default: 8."),
};
const outputFlags = {
  ...namingFlag,
  output: text("Write the adapter_config.json to this file, in a folder that is there.", {
    placeholder: "file",
  }),
  python: toggle("Print the Python code that does the same with PEFT."),
  json: toggle("Print one JSON document."),
};

export const spell = spelling(["loraAlpha"]);

export function define(command: Command): void {
  command.argument("<model>", "directory, config.json, .safetensors file, skeleton, or org/name on the Hub");
  addFlags(command, "Modules", flags);
  addFlags(command, "Output", outputFlags);
  command.addHelpText(
    "after",
    `
Finds the shortest adapter_config.json with which PEFT adapts exactly the named modules, with these ranks: names, names
and layers, or one regex. It is proved on the model, and told whether it means the same on one with more layers.

Examples:
  printf '%s\\n' model.layers.{4,5}.self_attn.{q,v}_proj | graft synthesize models/tiny-llama --names -
  graft synthesize models/tiny-llama --names modules.txt --r 16 --lora-alpha 32 --output adapter_config.json
  echo '{"lm_head": 4, "model.layers.0.mlp.up_proj": 8}' | graft synthesize models/tiny-llama --names - --json`,
  );
  command.action((model: string) => run(model, command));
}

async function run(location: string, command: Command): Promise<void> {
  const problems: string[] = [];
  const { names, r, loraAlpha } = readFlags(command, flags, problems);
  const {
    naming = "native",
    output: file,
    python = false,
    ...rest
  } = readFlags(command, outputFlags, problems);
  const output = new Output(rest);
  if (names === undefined)
    problems.push("--names is missing: give a file of module names, or - for standard input");
  if (file !== undefined && !(await isDirectory(dirname(file))))
    problems.push(`--output ${file}: there is no folder ${dirname(file)}`);
  throwProblems(problems);

  const given = await readWantedModules(names!);
  const { tree: read, warnings: treeWarnings } = await readModuleTree(location);
  const { tree, wanted, layout } = underNames(given, read, naming);
  const base: SelectionConfig = {
    ...(r === undefined ? {} : { r }),
    ...(loraAlpha === undefined ? {} : { loraAlpha }),
  };
  const synthesis = synthesize(tree, withValues(wanted, base), { base });
  const config = new LoraConfig({
    ...(synthesis.config as LoraConfigOptions),
    baseModelNameOrPath: tree.name,
  });
  const { selection, form, exact, deeper } = synthesis;
  const warnings = [
    ...treeWarnings.map((message) => ({ code: "model", message })),
    ...selection.warnings.map(({ code, message }) => ({ code, message: spell(message) })),
  ];
  for (const { message } of warnings) output.warn(message);
  if (file !== undefined) await writeFileAtomic(file, config.stringify());
  const snippet = python
    ? toPython(config, {
        className: layout?.python.className ?? tree.className,
        loading: layout?.python.loading,
        location,
      })
    : undefined;
  output.document({
    config: config.toJSON(),
    exact,
    form,
    deeper,
    targets: selection.targets.map(targetJson),
    ...(file === undefined ? {} : { output: file }),
    ...(snippet === undefined ? {} : { python: snippet }),
    warnings,
  });
  if (snippet !== undefined) return output.write(snippet);
  printSynthesis(output, synthesis, config);
  if (file !== undefined) output.print(`wrote ${file}`);
}

/** The modules that are wanted, each by its native or its older name, under the names that the answer is to have. */
function underNames(
  wanted: WantedModules,
  tree: ModuleTree,
  naming: Naming,
): { tree: ModuleTree; wanted: WantedModules; layout: OlderLayout | undefined } {
  const layout = layoutNamed(naming, tree);
  const known = olderLayoutOf(tree);
  if (known === undefined) return { tree, wanted, layout };
  const modules = new Set(tree.modules.map(({ name }) => name));
  const without: string[] = [];
  const renamed = (name: string): string => {
    const other = known.toNative(name);
    const native = !modules.has(name) && other !== undefined && modules.has(other) ? other : name;
    if (layout === undefined || !modules.has(native)) return native;
    const older = layout.toOlder(native);
    if (older === undefined) {
      const why = layout.whyNot(native);
      without.push(`"${native}"${why ? ` (${why})` : ""}`);
    }
    return older ?? native;
  };
  const named = new Map([...wanted].map(([name, value]) => [renamed(name), value]));
  if (without.length > 0)
    throw new AdapterError(
      `These modules have no name in ${known.owner}: ${listProblems(without)}. Leave them out, or ask for the native names.`,
      { code: "no-older-name", details: { names: without } },
    );
  return { tree: layout ? olderTree(tree, layout) : tree, wanted: named, layout };
}

/** Ranks and alphas only if the file gives some: then every module has both. */
function withValues(
  wanted: WantedModules,
  { r = 8, loraAlpha = 8 }: SelectionConfig,
): Iterable<string> | ReadonlyMap<string, { r: number; alpha: number }> {
  const given = [...wanted.values()];
  if (given.every((value) => value.r === undefined && value.alpha === undefined)) return wanted.keys();
  return new Map([...wanted].map(([name, value]) => [name, { r, alpha: loraAlpha, ...value }]));
}

const howSaid: Readonly<Record<Synthesis["form"], string>> = {
  "all-linear": "PEFT's all-linear",
  list: "a list of names",
  "list+layers": "a list of names, limited to layers",
  "list+exclude": "a list of names, with exclusions",
  regex: "one regex for the whole name",
};

function printSynthesis(output: Output, { selection, form, deeper }: Synthesis, config: LoraConfig): void {
  for (const line of configLines(config)) output.print(line);
  output.print("");
  const count = selection.targets.length;
  output.print(
    `exactly ${grouped(count)} ${count === 1 ? "target" : "targets"}: ${describeTargets(selection.targets.map(({ name }) => name))}`,
  );
  output.print(`form: ${form} (${howSaid[form]})`);
  output.print(deeper.message);
}

const isDirectory = (path: string): Promise<boolean> =>
  stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
