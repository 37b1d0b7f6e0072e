import type { WeightStorage } from "../value.ts";
import { commonDirectory, relativeTo, rootOf } from "./paths.ts";

/**
 * Decides how the model refers to its weights: by file, relative to one directory, so that ONNX Runtime maps them, or
 * as bytes in memory. ONNX Runtime takes either, not both in one model: a single weight without a local file, or files
 * on two drives, bring all weights into memory.
 */
export class WeightFiles {
  /** Directory that the locations of files are relative to; undefined if there is no weight, or all are in memory. */
  readonly directory: string | undefined;
  /** Weights to be read into memory, by the location that the model gives them. */
  readonly memory: { location: string; storage: WeightStorage }[] = [];
  /** Real paths by path. */
  private readonly files = new Map<string, string>();

  constructor(storages: readonly WeightStorage[], realPath: (path: string) => string) {
    const paths = storages.flatMap(({ source: { path } }) => path ?? []);
    for (const path of new Set(paths)) this.files.set(path, realPath(path));
    const roots = new Set([...this.files.values()].map(rootOf));
    if (paths.length === storages.length && roots.size === 1)
      this.directory = commonDirectory([...this.files.values()]);
  }

  /** Where a weight lies, for ONNX's external data. Call it once for each initializer. */
  place(storage: WeightStorage): { location: string; byteOffset: number } {
    if (this.directory === undefined) {
      const location = `memory/${this.memory.length}`;
      this.memory.push({ location, storage });
      return { location, byteOffset: 0 };
    }
    const path = this.files.get(storage.source.path!)!;
    return { location: relativeTo(this.directory, path), byteOffset: storage.byteOffset };
  }
}
