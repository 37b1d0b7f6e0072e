import { stat } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { promisify } from "node:util";
import { gunzip } from "node:zlib";
import { moduleTreeOf } from "../adapters/module-tree.ts";
import { openStore, readJson } from "../checkpoint/index.ts";
import { directoryStore, fileSource } from "../checkpoint/node.ts";
import { CheckpointError, SelectionError } from "../errors.ts";
import { buildCausalLM } from "../models/registry.ts";
import { type ModuleTree, parseSkeleton } from "../selection/index.ts";

/** A skeleton of a model with hundreds of thousands of modules has some 100 MB; a hostile file could unpack to anything. */
const maxSkeletonBytes = 2 ** 30;

/**
 * The module tree of a model, without its weights: from a skeleton file, or built from config.json.
 * @throws CheckpointError if there is no such file, UnsupportedModelError for a type that is not implemented.
 */
export async function readModuleTree(location: string): Promise<{ tree: ModuleTree; warnings: string[] }> {
  const isFile = await stat(location).then(
    (found) => found.isFile(),
    () => false,
  );
  if (isFile && /\.json(\.gz)?$/i.test(location) && !/\.index\.json$/i.test(location)) {
    const json = await readDocument(location);
    if (isObject(json) && Array.isArray(json["modules"]))
      return { tree: skeleton(json, location), warnings: [] };
    if (isObject(json) && typeof json["model_type"] === "string")
      return build(json, location, dirname(location));
    throw new CheckpointError(
      `${location}: neither a skeleton (a JSON object with "modules") nor a config.json (with "model_type"). Name a model's directory, or one of the two.`,
      { code: "not-a-model", details: { file: location } },
    );
  }
  const store = await openStore(location);
  return build(await readJson(store, "config.json"), `${store.name}/config.json`, store.name);
}

/** A JSON file, unpacked if need be. */
async function readDocument(path: string): Promise<unknown> {
  if (!/\.gz$/i.test(path)) return readJson(directoryStore(dirname(path)), basename(path));
  const source = await fileSource(path);
  try {
    const packed = await source.read(0, source.size);
    const text = await promisify(gunzip)(packed, { maxOutputLength: maxSkeletonBytes });
    return JSON.parse(text.toString("utf8")) as unknown;
  } catch (cause) {
    throw new CheckpointError(
      `${path}: not a gzip-compressed JSON file (${(cause as Error).message}). Write it again, or download it again.`,
      { code: "invalid-json", details: { file: path }, cause },
    );
  }
}

function skeleton(json: unknown, location: string): ModuleTree {
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

function build(config: unknown, file: string, name: string): { tree: ModuleTree; warnings: string[] } {
  const { model, warnings } = buildCausalLM(config, file);
  model.origin = {
    name,
    config: config as Record<string, unknown>,
    generationConfig: undefined,
    checkpoint: { name, tensors: new Map(), metadata: {} },
    warnings,
  };
  return { tree: moduleTreeOf(model), warnings };
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
