/** Reads vector files: gzip-compressed JSON documents. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { gunzipSync } from "node:zlib";
import { type ModuleTree, parseSkeleton } from "../../src/selection/index.ts";

export const readVectors = (path: string): unknown =>
  JSON.parse(gunzipSync(readFileSync(path)).toString("utf8"));

/** All `*.json.gz` files below a folder, sorted. */
export const vectorFiles = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".json.gz"))
    .sort()
    .map((name) => join(folder, name));

const copied = join(import.meta.dirname, "../vectors/skeletons");
const trees = new Map<string, ModuleTree>();

/**
 * The skeleton that a vector file names: from a `skeletons` folder beside the file's folder or above it, else from
 * the copied reference data.
 */
export function findSkeleton(name: string, vectorFile: string): ModuleTree {
  const candidates: string[] = [];
  for (let folder = dirname(vectorFile), depth = 0; depth < 4; folder = dirname(folder), depth++)
    candidates.push(join(folder, "skeletons"));
  const path = [...candidates, copied].map((folder) => join(folder, `${name}.json.gz`)).find(existsSync);
  if (path === undefined)
    throw new Error(`No skeleton "${name}" for ${vectorFile}: looked in ${candidates}, ${copied}.`);
  let tree = trees.get(path);
  if (tree === undefined) {
    tree = parseSkeleton(readVectors(path));
    trees.set(path, tree);
  }
  return tree;
}
