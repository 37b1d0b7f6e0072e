import {
  type Checkpoint,
  type FileStore,
  openStore,
  readCheckpoint,
  readJson,
  readJsonIfPresent,
} from "../checkpoint/index.ts";
import { CheckpointError, isGraftError, SelectionError, UnsupportedModelError } from "../errors.ts";
import { type ModuleTree, parseSkeleton } from "../selection/tree.ts";
import { readJsonFile } from "./json-file.ts";
import { familyOf } from "./known-types.ts";
import type {
  Inspection,
  InspectionOptions,
  InspectionWarning,
  StoredDtype,
  StoredWeights,
} from "./types.ts";

type Json = Readonly<Record<string, unknown>>;

/**
 * The module tree of a model, without its weights: of their files only headers are read. `location` is a directory with
 * config.json and safetensors (one file or shards), config.json itself, a .safetensors file, a shard index, a skeleton
 * (.json, .json.gz), an address of one of these, or a model on the Hub (`org/name`, `hf://org/name@revision`); a path that
 * exists comes first.
 *
 * Of model types that Graft builds, modules are exactly those of transformers, and weights need not be there. Of all others
 * they are inferred from the weights' headers, and a warning says so.
 * @throws CheckpointError if there is nothing of the kind, UnsupportedModelError if modules are neither known nor to be
 *   inferred, because there are no weights; the signal's reason if aborted.
 */
export async function readModuleTree(
  location: string | FileStore,
  options: InspectionOptions = {},
): Promise<Inspection> {
  const { fetch, headers, signal } = options;
  const store = await openStore(location, { ...(fetch && { fetch }), ...(headers && { headers }) });
  const reading = signal === undefined ? {} : { signal };
  const document = await namedDocument(store);
  if (document === undefined) return inspectFiles(store, options);
  const json = await readJsonFile(store, document, reading);
  const label = typeof location === "string" ? location : document;
  if (isObject(json) && Array.isArray(json["modules"]))
    return { tree: skeletonOf(json, label), source: "skeleton", warnings: [], weights: undefined };
  if (isObject(json) && typeof json["model_type"] === "string") {
    // What stands beside config.json belongs to it.
    const { weights: _, ...directory } = store;
    return inspectFiles({ ...directory, name: parentOf(store.name) }, options, { json, file: label });
  }
  if (isObject(json) && "peft_type" in json) throw adapterError(label, json);
  throw new CheckpointError(
    `${label}: neither a skeleton (a JSON object with "modules") nor a config.json (with "model_type"). Name a model's directory, or one of the two.`,
    { code: "not-a-model", details: { file: label } },
  );
}

/** The JSON file that the location names, or the only file that was dropped on a page. */
async function namedDocument(store: FileStore): Promise<string | undefined> {
  const isDocument = (file: string) => /\.json(?:\.gz)?$/i.test(file) && !/\.index\.json$/i.test(file);
  if (store.weights !== undefined) return isDocument(store.weights) ? store.weights : undefined;
  if (store.path !== undefined || store.list === undefined || store.name.includes("/")) return undefined;
  const files = await store.list();
  return files.length === 1 && isDocument(files[0]!) && files[0] !== "config.json" ? files[0] : undefined;
}

type ConfigFile = { readonly json: Json; readonly file: string };

async function inspectFiles(
  store: FileStore,
  options: InspectionOptions,
  given?: ConfigFile,
): Promise<Inspection> {
  const { signal, asStored = false, skipWeights = false } = options;
  const reading = signal === undefined ? {} : { signal };
  const config = given ?? (await readConfig(store, reading));
  const family = config === undefined || asStored ? undefined : familyOf(config.json);
  const known = family === undefined ? undefined : await import("./known-model.ts");
  const built = known?.buildKnownModel(family!, config!.json, config!.file, store.name);
  const unsupported = built instanceof UnsupportedModelError ? built : undefined;
  if (known && built !== undefined && !(built instanceof UnsupportedModelError)) {
    const found = skipWeights ? undefined : await optionalWeights(store, reading);
    const checkpoint = found instanceof CheckpointError ? undefined : found;
    const warnings = [
      ...built.warnings,
      ...(found instanceof CheckpointError ? [unreadable(found)] : []),
      ...(checkpoint === undefined
        ? []
        : known.compareWithWeights(built.tree, built.convert(checkpoint), config!.json)),
    ];
    return { tree: built.tree, source: "model", warnings, weights: checkpoint && summary(checkpoint) };
  }
  const checkpoint = await requiredWeights(store, config, unsupported, reading);
  const tensors = [...checkpoint.tensors.values()];
  const { inferTree } = await import("../selection/infer/index.ts");
  const { tree, warnings } = inferTree(tensors, config?.json, { name: store.name, asStored });
  return {
    tree,
    source: "inferred",
    warnings: [inferredWarning(config?.json, unsupported), ...warnings],
    weights: summary(checkpoint),
  };
}

async function readConfig(
  store: FileStore,
  reading: { signal?: AbortSignal },
): Promise<ConfigFile | undefined> {
  const json = await readJsonIfPresent(store, "config.json", reading);
  const file = `${store.weights === undefined ? store.name : parentOf(store.name)}/config.json`;
  if (isObject(json)) return { json, file };
  if (json !== undefined)
    throw new CheckpointError(`${file}: expected a JSON object. Is it the config.json of the model?`, {
      code: "invalid-config",
      details: { file },
    });
  const adapter =
    store.weights === undefined ? await readJsonIfPresent(store, "adapter_config.json", reading) : undefined;
  if (isObject(adapter)) throw adapterError(store.name, adapter);
  return undefined;
}

/** The headers, undefined where there are no weights, or why they cannot be read. */
async function optionalWeights(
  store: FileStore,
  reading: { signal?: AbortSignal },
): Promise<Checkpoint | CheckpointError | undefined> {
  try {
    return await readCheckpoint(store, reading);
  } catch (error) {
    if (!(error instanceof CheckpointError) || store.weights !== undefined) throw error;
    return ["no-weights", "pickle", "adapter"].includes(error.code) ? undefined : error;
  }
}

async function requiredWeights(
  store: FileStore,
  config: ConfigFile | undefined,
  unsupported: UnsupportedModelError | undefined,
  reading: { signal?: AbortSignal },
): Promise<Checkpoint> {
  try {
    return await readCheckpoint(store, reading);
  } catch (error) {
    if (!isGraftError(error) || (error.code !== "no-weights" && error.code !== "pickle")) throw error;
    if (unsupported !== undefined) throw unsupported;
    if (config === undefined) {
      if (error.code === "pickle") throw error;
      // Says which names are near.
      await readJson(store, "config.json", reading);
      throw error;
    }
    const type = config.json["model_type"];
    throw new CheckpointError(
      `${error.message} Graft does not build models of type ${JSON.stringify(type ?? null)} itself, so their modules are inferred from the headers of safetensors weights.`,
      { code: error.code, details: { ...error.details, modelType: type }, cause: error },
    );
  }
}

function inferredWarning(
  config: Json | undefined,
  unsupported: UnsupportedModelError | undefined,
): InspectionWarning {
  const type = config?.["model_type"];
  const why =
    unsupported !== undefined
      ? `${unsupported.message.replace(/\.?$/, "")}`
      : config === undefined
        ? "there is no config.json"
        : `Graft has no definition of model type ${JSON.stringify(type ?? null)}`;
  return {
    code: "inferred",
    message:
      `modules are inferred from the names and shapes of the tensors, as ${why}: kinds may be wrong, and modules without ` +
      "tensors (activations, dropout) are not listed.",
    details: { ...(typeof type === "string" ? { modelType: type } : {}) },
  };
}

const unreadable = (error: CheckpointError): InspectionWarning => ({
  code: error.code,
  message: `the weights cannot be read, the modules are those of config.json: ${error.message}`,
  details: error.details,
});

function adapterError(where: string, adapter: Json): CheckpointError {
  const base = adapter["base_model_name_or_path"];
  const named = typeof base === "string" && base !== "" ? JSON.stringify(base) : undefined;
  return new CheckpointError(
    `${where}: this is an adapter, not a model. Name its base model` +
      (named === undefined
        ? ", which base_model_name_or_path of its adapter_config.json does not tell."
        : `, by its base_model_name_or_path: ${named}.`),
    { code: "adapter", details: { location: where, ...(named === undefined ? {} : { baseModel: base }) } },
  );
}

function skeletonOf(json: Json, location: string): ModuleTree {
  try {
    return parseSkeleton(json);
  } catch (error) {
    if (!(error instanceof SelectionError)) throw error;
    throw new SelectionError(`${location}: ${error.message}`, {
      code: error.code,
      details: { file: location, ...error.details },
    });
  }
}

function summary({ tensors }: Checkpoint): StoredWeights {
  const dtypes: Record<string, { -readonly [K in keyof StoredDtype]: number }> = {};
  const files = new Set<unknown>();
  let bytes = 0;
  for (const { dtype, shape, byteLength, source } of tensors.values()) {
    let values = 1;
    for (const dim of shape) values *= dim;
    dtypes[dtype] ??= { tensors: 0, values: 0, bytes: 0 };
    const entry = dtypes[dtype];
    entry.tensors++;
    entry.values += values;
    entry.bytes += byteLength;
    bytes += byteLength;
    files.add(source);
  }
  return { tensors: tensors.size, bytes, files: files.size, dtypes };
}

const isObject = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const parentOf = (path: string): string => /^(.*)[/\\][^/\\]*$/s.exec(path)?.[1] ?? ".";
