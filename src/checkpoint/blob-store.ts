import { blobSource, type FileStore } from "./byte-source.ts";
import { baseName, checkFileName } from "./file-name.ts";

/**
 * Files picked in a browser, dropped on a page, or otherwise in memory, by name. A single safetensors file may
 * have any name.
 */
export function blobStore(files: ReadonlyMap<string, Blob>, name = "files"): FileStore {
  const [only, ...others] = files.keys();
  const single = only !== undefined && others.length === 0 && baseName(only).endsWith(".safetensors");
  return {
    name: single ? only : name,
    ...(single ? { weights: only } : {}),
    async open(file, { signal } = {}) {
      signal?.throwIfAborted();
      checkFileName(name, file);
      const blob = files.get(file);
      return blob && blobSource(file, blob);
    },
    list: async () => [...files.keys()],
  };
}
