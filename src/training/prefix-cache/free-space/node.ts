import * as fs from "node:fs/promises";
import { freemem } from "node:os";
import { dirname, resolve } from "node:path";

/** Memory that this process can still take, in bytes: what the system, or the container it runs in, has left. */
export const freeMemory = (): number =>
  // Node 20.13 and later have it.
  (process.availableMemory as (() => number) | undefined)?.() ?? freemem();

/** Space for files in a folder, which need not exist yet, in bytes; undefined if the system does not say. */
export async function freeDisk(directory: string): Promise<number | undefined> {
  for (let path = resolve(directory); ; path = dirname(path)) {
    try {
      const { bavail, bsize } = await fs.statfs(path);
      return bavail * bsize;
    } catch (error) {
      const missing = ["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "");
      if (!missing || dirname(path) === path) return undefined;
    }
  }
}
