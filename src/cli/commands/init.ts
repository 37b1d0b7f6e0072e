import type { Command } from "commander";
import { type FreshAdapter, freshAdapter, savedConfig } from "../../adapters/fresh.ts";
import { CONFIG_FILE, type LoraConfig, olderAdapter, toPython, WEIGHTS_FILE } from "../../adapters/index.ts";
import { type Checkpoint, openStore, readCheckpoint, safetensorsChunks } from "../../checkpoint/index.ts";
import { type FileContents, writeDirectoryAtomic } from "../../checkpoint/node.ts";
import { AdapterError, isGraftError } from "../../errors.ts";
import type { OlderLayout } from "../../nn/index.ts";
import { type ModuleTree, selectTargets } from "../../selection/index.ts";
import { configFlag, loraFlags, selectionFlags } from "../adapter-flags.ts";
import { loraProblems, readAdapter } from "../adapter-request.ts";
import { bytes, describeTargets, grouped, targetJson } from "../describe.ts";
import { throwProblems } from "../errors.ts";
import { addFlags, number, readFlags, text, toggle } from "../flags.ts";
import { type NamedAdapter, namingFlag, resolveNaming } from "../naming.ts";
import { Output } from "../output.ts";
import { spelling } from "../schema-flags.ts";
import { readModuleTree } from "../tree.ts";

const lora = { ...loraFlags, ...selectionFlags };
const initFlags = {
  output: text(`Folder for ${CONFIG_FILE} and ${WEIGHTS_FILE}; made if it is not there.`, {
    placeholder: "dir",
  }),
  configOnly: toggle(`Write ${CONFIG_FILE} only.`),
  ...namingFlag,
  overwrite: toggle("Replace an adapter that is in --output already."),
  seed: number("Another seed starts the weights differently. Default: 0.", {}, (n) =>
    Number.isSafeInteger(n) && n >= 0 ? undefined : "must be a whole number of at least 0",
  ),
};
const outputFlags = {
  python: toggle("Print the Python code that does the same with PEFT."),
  json: toggle("Print one JSON document."),
};

export const spell = spelling(Object.keys({ ...lora, ...initFlags }));

export function define(command: Command): void {
  command.argument("<model>", "directory, config.json, .safetensors file, skeleton, or org/name on the Hub");
  addFlags(command, "Adapter", { ...configFlag, ...lora });
  addFlags(command, "Files", initFlags);
  addFlags(command, "Output", outputFlags);
  command.addHelpText(
    "after",
    `
Writes an adapter that changes nothing yet, as PEFT's get_peft_model(...).save_pretrained() would: for PEFT to train, or
to compare with. No base weights are read, unless some are saved along (--modules-to-save, --bias).

Examples:
  graft init models/tiny-llama --target-modules q_proj,v_proj --r 16 --lora-alpha 32 --output out/fresh
  graft init models/tiny-llama --config out/fresh --config-only --output out/config
  graft init models/tiny-llama --target-modules all-linear --output out/all --python
  graft init microsoft/Florence-2-base --target-modules qkv --naming remote-code --output out/older`,
  );
  command.action((model: string) => run(model, command));
}

async function run(location: string, command: Command): Promise<void> {
  const problems: string[] = [];
  const values = readFlags(command, lora, problems);
  const { config: file } = readFlags(command, configFlag, problems);
  const {
    output: directory,
    configOnly = false,
    overwrite = false,
    naming,
    seed = 0,
  } = readFlags(command, initFlags, problems);
  const { python = false, ...rest } = readFlags(command, outputFlags, problems);
  const output = new Output(rest);
  if (directory === undefined) problems.push("--output is missing: name a folder for the adapter");
  if (file === undefined) problems.push(...loraProblems(values).map(spell));
  throwProblems(problems);

  const request = await readAdapter(file, values);
  const { tree, warnings: treeWarnings } = await readModuleTree(location);
  const { native, shown, layout } = await resolveNaming(request, tree, naming);
  const { config, warnings: adapterWarnings } = shown.adapter;
  if (!overwrite) await refuseExisting(directory!);
  const fresh = await makeAdapter(location, tree, native.adapter.config, { configOnly, seed });
  const made = layout ? renamedAdapter(fresh, native.adapter.config, shown, layout, tree) : fresh;
  const warnings = [
    ...treeWarnings.map((message) => ({ code: "model", message })),
    ...adapterWarnings,
    ...made.selection.warnings.map(({ code, message }) => ({ code, message })),
  ].map(({ code, message }) => ({ code, message: spell(message) }));
  for (const { message } of warnings) output.warn(message);
  await writeDirectoryAtomic(directory!, filesOf(made));

  const { selection } = made;
  const all = [...selection.targets, ...selection.targetParameters];
  const snippet = toPython(config, {
    className: layout?.python.className ?? tree.className,
    loading: layout?.python.loading,
    location,
  });
  output.document({
    output: directory,
    files: [...filesOf(made).keys()],
    targets: all.map(targetJson),
    modulesToSave: selection.modulesToSave,
    trainableParameters: selection.trainableParameters,
    config: made.config.toJSON(),
    ...(python && { python: snippet }),
    warnings,
  });
  if (python) return output.write(snippet);
  output.print(`targets: ${describeTargets(all.map(({ name }) => name))}`);
  output.print(
    `trainable params: ${grouped(selection.trainableParameters)} (${bytes(4 * selection.trainableParameters)})`,
  );
  output.print(`wrote ${[...filesOf(made).keys()].join(" and ")} to ${directory}`);
}

type Made = Pick<FreshAdapter, "config" | "selection"> & { readonly tensors?: FreshAdapter["tensors"] };

async function makeAdapter(
  location: string,
  tree: ModuleTree,
  config: LoraConfig,
  { configOnly, seed }: { configOnly: boolean; seed: number },
): Promise<Made> {
  if (configOnly) {
    const selection = selectTargets(tree, config.with({ inferenceMode: false }).toSelection());
    return { config: savedConfig(config, selection, tree), selection };
  }
  return freshAdapter(tree, config, { seed, openCheckpoint: () => weightsOf(location, tree) });
}

/** The same adapter for the older class. */
function renamedAdapter(
  { tensors }: Made,
  config: LoraConfig,
  shown: NamedAdapter,
  layout: OlderLayout,
  tree: ModuleTree,
): Made {
  const said = shown.adapter.config;
  if (tensors === undefined) {
    const selection = selectTargets(shown.tree, said.with({ inferenceMode: false }).toSelection());
    // Where the older class lies is not known.
    return { config: savedConfig(said, selection, shown.tree).with({ autoMapping: null }), selection };
  }
  const made = olderAdapter({ config, tensorOf: (key) => tensors.get(key) }, tree, layout, said);
  return {
    ...made,
    config: made.config.with({ baseModelNameOrPath: config.baseModelNameOrPath ?? tree.name }),
  };
}

/** The headers of the base weights; undefined where there are none, which only matters if some are to be copied. */
async function weightsOf(location: string, { modelType }: ModuleTree): Promise<Checkpoint | undefined> {
  if (/\.json(\.gz)?$/i.test(location) && !/\.index\.json$/i.test(location)) return undefined;
  try {
    const checkpoint = await readCheckpoint(await openStore(location));
    if (modelType !== "florence2") return checkpoint;
    const { nativeFlorence2Checkpoint } = await import("../../models/florence2-layout.ts");
    return nativeFlorence2Checkpoint(checkpoint).checkpoint;
  } catch (error) {
    if (!isGraftError(error)) throw error;
    return undefined;
  }
}

function filesOf({ config, tensors }: Made): Map<string, FileContents> {
  const files = new Map<string, FileContents>();
  if (tensors !== undefined) files.set(WEIGHTS_FILE, safetensorsChunks(tensors, { format: "pt" }));
  return files.set(CONFIG_FILE, config.stringify());
}

/** @throws AdapterError if the folder holds an adapter. */
async function refuseExisting(directory: string): Promise<void> {
  const store = await openStore(directory).catch((error: unknown) => {
    if (isGraftError(error)) return undefined;
    throw error;
  });
  for (const file of [CONFIG_FILE, WEIGHTS_FILE])
    if ((await store?.open(file)) !== undefined)
      throw new AdapterError(
        `${directory}/${file} is there already. Name another folder, or give --overwrite.`,
        {
          code: "exists",
          details: { directory, file },
        },
      );
}
