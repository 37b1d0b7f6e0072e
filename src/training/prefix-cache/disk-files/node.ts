import * as fs from "node:fs/promises";
import { join } from "node:path";

/** Names of the files in a store's folder that are a store's. */
export async function fileNames(folder: string): Promise<string[]> {
  const names = await fs.readdir(folder).catch(() => []);
  return names.filter((name) => /^[0-9a-f]{16}\.(data|index)$/.test(name)).sort();
}

/** Deletes a store's files, and its folder if there is nothing else in it. Returns the bytes that were freed. */
export async function removeFolder(folder: string): Promise<number> {
  let freed = 0;
  for (const name of await fileNames(folder)) {
    const path = join(folder, name);
    try {
      const { size } = await fs.stat(path);
      await fs.rm(path);
      freed += size;
    } catch {
      // It is in use, on Windows, or another process was faster.
    }
  }
  await fs.rmdir(folder).catch(() => undefined);
  return freed;
}

/**
 * Deletes what other prefixes have stored in a cache's folder; `keep` names those that stay. Only files that a store makes
 * are touched. (A process that still uses one of them goes on with the files it has open.)
 */
export async function removeStale(
  directory: string,
  keep: string | readonly string[],
): Promise<{ folders: string[]; bytes: number }> {
  const kept = new Set(typeof keep === "string" ? [keep] : keep);
  const found = await fs.readdir(directory, { withFileTypes: true }).catch(() => []);
  const stale = found.filter(
    (entry) => entry.isDirectory() && /^[0-9a-f]{64}$/.test(entry.name) && !kept.has(entry.name),
  );
  const folders = stale.map(({ name }) => name);
  let bytes = 0;
  for (const name of folders) bytes += await removeFolder(join(directory, name));
  return { folders, bytes };
}

/** Whether there is a cache's folder. */
export const isThere = (directory: string): Promise<boolean> =>
  fs.stat(directory).then(
    () => true,
    () => false,
  );

/** Deletes a cache's folder if nothing lies in it. */
export const removeIfEmpty = async (directory: string): Promise<void> =>
  fs.rmdir(directory).catch(() => undefined);
