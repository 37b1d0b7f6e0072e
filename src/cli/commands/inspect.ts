import type { Command } from "commander";
import { listProblems } from "../../errors.ts";
import type { Inspection } from "../../inspection/index.ts";
import { defaultTargetModules } from "../../selection/peft/defaults.ts";
import { type Block, structureOf } from "../../selection/structure/index.ts";
import type { ModuleInfo, ModuleTree } from "../../selection/tree.ts";
import { bytes, grouped } from "../describe.ts";
import { throwProblems } from "../errors.ts";
import { addFlags, custom, number, readFlags, single, toggle } from "../flags.ts";
import { formatShape, moduleTreeView, shapeOf } from "../module-tree-view.ts";
import { namingFlag, treeNamed } from "../naming.ts";
import { Output } from "../output.ts";
import { printable, styled } from "../style.ts";
import { readModuleTree } from "../tree.ts";

const viewFlags = {
  depth: number("Show so many levels of the tree.", {}, (n) =>
    Number.isInteger(n) && n >= 0 ? undefined : "must be 0 or a whole number above",
  ),
  match: custom(
    "Show only modules whose name, or its end, fits: '*_proj', 'layers.3.**', '{q,v}_proj'.",
    { placeholder: "glob" },
    single,
  ),
  flat: toggle("List every module on a line of its own, those without parameters too."),
  ...namingFlag,
  asStored: toggle("Show the file's names, also where transformers gives them others on loading."),
};
const outputFlags = { json: toggle("Print one JSON document.") };

export function define(command: Command): void {
  command.argument(
    "<model>",
    "directory, config.json, .safetensors file, shard index, skeleton (.json, .json.gz), address, or org/name on the Hub",
  );
  addFlags(command, "View", viewFlags);
  addFlags(command, "Output", outputFlags);
  command.addHelpText(
    "after",
    `
Reads the headers of weights, not the weights; of a model on the Hub, nothing else is fetched. Layers that are alike are
one line. Of model types that Graft builds, modules are exact; for others they are inferred from names and shapes.

Examples:
  graft inspect models/tiny-llama
  graft inspect models/tiny-llama --match '*_proj'
  graft inspect models/tiny-llama --depth 2 --json
  graft inspect org/name@main`,
  );
  command.action((model: string) => run(model, command));
}

/** What a glob names; `**` spans parts of a name, `*` does not. */
async function compileGlob(glob: string): Promise<(name: string) => boolean> {
  const { compileTail, globRegex } = await import("../../selection/groups/glob.ts");
  const regex = globRegex(glob);
  if (typeof regex !== "string") throwProblems([`--match has ${regex.message}, at character ${regex.at}`]);
  const pattern = compileTail(regex as string);
  return (name) => pattern.fullmatch(name) !== null;
}

async function run(location: string, command: Command): Promise<void> {
  const problems: string[] = [];
  const { depth, match: glob, flat, naming, asStored } = readFlags(command, viewFlags, problems);
  const output = new Output(readFlags(command, outputFlags, problems));
  throwProblems(problems);
  const match = glob === undefined ? undefined : await compileGlob(glob);
  const read = await readModuleTree(location, { asStored: asStored === true });
  const inspection = naming === undefined ? read : { ...read, tree: treeNamed(naming, read.tree) };
  const { tree, notices } = inspection;
  const { blocks, towers } = structureOf(tree);
  const shown =
    match === undefined ? tree.modules : tree.modules.filter(({ name }) => name !== "" && match(name));
  const warnings = notices.map(({ code, message }) => ({ code, message }));
  if (match !== undefined && shown.length === 0)
    warnings.push({ code: "no-match", message: `no module of ${printable(tree.name)} fits --match` });
  for (const { message } of warnings) output.warn(message);
  if (output.json) {
    output.document(document(inspection, shown, blocks, towers, warnings));
    return;
  }
  if (flat) output.print(list(shown));
  else if (shown.length > 0) output.print(moduleTreeView(tree, { depth, only: match }));
  output.print("");
  for (const line of summary(inspection, blocks)) output.print(line);
}

type Json = Record<string, unknown>;

function document(
  { tree, source, weights }: Pick<Inspection, "tree" | "source" | "weights">,
  modules: readonly ModuleInfo[],
  blocks: readonly Block[],
  towers: readonly string[],
  warnings: readonly { code: string; message: string }[],
): Json {
  const tied = new Map(
    tree.tiedWeights.map(([name, first]) => [name.slice(0, name.lastIndexOf(".")), first]),
  );
  return {
    name: tree.name,
    modelType: tree.modelType,
    className: tree.className,
    source,
    inferred: source === "inferred",
    parameters: tree.numParameters,
    weights: weights ?? null,
    inputEmbeddings: tree.inputEmbeddings,
    outputEmbeddings: tree.outputEmbeddings,
    tiedWeights: tree.tiedWeights,
    defaultTargetModules: defaultsOf(tree) ?? null,
    blocks: blocks.map(({ pattern, template, count, lists }) => ({
      pattern,
      count,
      template,
      lists: lists.map(({ path, indices }) => ({ path, first: indices[0], last: indices.at(-1) })),
    })),
    towers,
    modules: modules.map((module) => moduleJson(module, tied)),
    warnings,
  };
}

function moduleJson(module: ModuleInfo, tied: ReadonlyMap<string, string>): Json {
  const { name, className, kind, in: inputs, out, parameters, extra } = module;
  const tiedTo = tied.get(name);
  return {
    name,
    kind,
    className,
    in: inputs,
    out,
    shape: shapeOf(module),
    parameters: parameters.reduce((sum, [, shape]) => sum + shape.reduce((a, b) => a * b, 1), 0),
    ...(parameters.length > 1 || (parameters.length === 1 && parameters[0]![0] !== "weight")
      ? { tensors: Object.fromEntries(parameters) }
      : {}),
    ...(extra === undefined ? {} : extra),
    ...(tiedTo === undefined ? {} : { tiedTo }),
  };
}

const defaultsOf = ({ modelType }: ModuleTree): readonly string[] | string | undefined =>
  Object.hasOwn(defaultTargetModules, modelType) ? defaultTargetModules[modelType] : undefined;

/** Every module on a line: name, kind, shape, parameters of its own. */
function list(modules: readonly ModuleInfo[]): string {
  const rows = modules.map((module) => {
    const own = module.parameters.reduce((sum, [, shape]) => sum + shape.reduce((a, b) => a * b, 1), 0);
    const shape = shapeOf(module);
    const kind = module.kind === "module" ? printable(module.className) : module.kind;
    return [
      printable(module.name) || ".",
      kind,
      shape === null ? "" : formatShape(shape),
      own === 0 ? "" : grouped(own),
    ] as const;
  });
  const widths = [0, 1, 2, 3].map((i) => Math.max(0, ...rows.slice(0, 10_000).map((row) => row[i]!.length)));
  return rows
    .map(([name, kind, shape, own]) =>
      `${name.padEnd(Math.min(100, widths[0]!))}  ${kind.padEnd(widths[1]!)}  ${shape.padEnd(widths[2]!)}  ${own.padStart(widths[3]!)}`.trimEnd(),
    )
    .join("\n");
}

function summary(
  { tree, source, weights }: Pick<Inspection, "tree" | "source" | "weights">,
  blocks: readonly Block[],
): string[] {
  const label = (name: string) => styled("bold", `${name}:`.padEnd(17));
  const defaults = defaultsOf(tree);
  const lines: [string, string][] = [
    ["model type", `${printable(tree.modelType)} (${printable(tree.className)})`],
    ["parameters", grouped(tree.numParameters)],
  ];
  if (blocks.length > 0) lines.push(["blocks", describeBlocks(blocks)]);
  if (weights !== undefined) {
    const kinds = Object.entries(weights.dtypes).sort((a, b) => b[1].bytes - a[1].bytes);
    const dtypes = kinds.map(([dtype, { bytes: size }]) =>
      kinds.length === 1 ? dtype : `${dtype} ${bytes(size)}`,
    );
    const files = weights.files === 1 ? "1 file" : `${grouped(weights.files)} files`;
    lines.push([
      "weights",
      `${grouped(weights.tensors)} tensors, ${bytes(weights.bytes)} in ${files} (${dtypes.join(", ")})`,
    ]);
  }
  if (tree.tiedWeights.length > 0) {
    const pairs = tree.tiedWeights.map(([name, first]) => `${printable(name)} → ${printable(first)}`);
    lines.push(["tied", listProblems(pairs)]);
  }
  const names = typeof defaults === "string" ? defaults : defaults?.join(", ");
  lines.push(["PEFT's default", names ?? "none for this type; name the target modules"]);
  lines.push(["modules", sources[source]]);
  return lines.map(([name, text]) => `${label(name)} ${text}`);
}

const sources: Readonly<Record<Inspection["source"], string>> = {
  skeleton: "as the skeleton lists them",
  model: "built from config.json, as transformers does",
  inferred: "inferred from the names and shapes of the tensors",
};

/** `encoder.layers × 6, decoder.layers × 6`; lists of one kind but of different length are named one by one. */
function describeBlocks(blocks: readonly Block[]): string {
  const parts = blocks.map(({ pattern, count, lists }) => {
    const within = lists.length > 1 ? ` (in each of ${grouped(lists.length)})` : "";
    return `${printable(pattern)} × ${grouped(count)}${within}`;
  });
  return parts.length <= 12
    ? parts.join(", ")
    : `${parts.slice(0, 12).join(", ")}, and ${parts.length - 12} more`;
}
