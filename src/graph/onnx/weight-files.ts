import type { WeightStorage } from "../value.ts";
import { commonDirectory, relativeTo, rootOf } from "./paths.ts";

/** Decides how the model refers to each weight: by its file, relative to one directory, or as bytes in memory. */
export class WeightFiles {
  /** Directory that locations of files are relative to; undefined if there is no file. */
  readonly directory: string | undefined;
  /** Weights that ONNX Runtime cannot map, by the location that the model gives them. */
  readonly memory: { location: string; storage: WeightStorage }[] = [];
  /** Real paths by path. */
  private readonly files = new Map<string, string>();

  constructor(storages: Iterable<WeightStorage>, realPath: (path: string) => string) {
    for (const { source } of storages)
      if (source.path !== undefined && !this.files.has(source.path))
        this.addFile(source.path, realPath(source.path));
    this.directory = this.files.size > 0 ? commonDirectory([...this.files.values()]) : undefined;
  }

  /** Where a weight lies, for ONNX's external data. Call it once for each initializer. */
  place(storage: WeightStorage): { location: string; byteOffset: number } {
    const path = storage.source.path === undefined ? undefined : this.files.get(storage.source.path);
    if (path !== undefined)
      return { location: relativeTo(this.directory!, path), byteOffset: storage.byteOffset };
    const location = `memory/${this.memory.length}`;
    this.memory.push({ location, storage });
    return { location, byteOffset: 0 };
  }

  /** Only files of one root can be relative to one directory: weights elsewhere go through memory. */
  private addFile(path: string, real: string): void {
    const [first] = this.files.values();
    if (first === undefined || rootOf(first) === rootOf(real)) this.files.set(path, real);
  }
}
