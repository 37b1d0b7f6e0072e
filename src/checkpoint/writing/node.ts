import { randomBytes } from "node:crypto";
import { type FileHandle, mkdir, open, realpath, rename, rm, rmdir, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { CheckpointError } from "../../errors.ts";
import type { ReadOptions } from "../byte-source.ts";
import { fileError } from "../file-error.ts";
import { type Metadata, safetensorsChunks, type TensorsOrEntries } from "../serialize.ts";

/** What a file shall hold: bytes, text (as UTF-8), or bytes piece by piece. */
export type FileContents = Uint8Array | string | AsyncIterable<Uint8Array>;

/**
 * Writes a safetensors file, atomically and without holding it in memory as a whole. The file may be the one
 * that some of the tensors are copied from.
 * @throws CheckpointError as serializeSafetensors and writeFileAtomic.
 */
export async function writeSafetensors(
  path: string,
  tensors: TensorsOrEntries,
  metadata?: Metadata,
  options?: ReadOptions,
): Promise<void> {
  await writeFileAtomic(path, safetensorsChunks(tensors, metadata, options));
}

/**
 * Writes a file so that at every moment, even if the machine stops, it has either its old contents or all of
 * the new: a temporary file in the same directory, fsync, rename. Missing parent directories are made. An
 * existing file keeps its permissions; a symbolic link is kept, and what it points to replaced.
 *
 * (The package write-file-atomic is not used: it takes the short write of a full disk for success, and then
 * puts the truncated file in place of the good one.)
 * @throws CheckpointError if that cannot be done; then nothing has changed.
 */
export async function writeFileAtomic(path: string, contents: FileContents): Promise<void> {
  const target = await realpath(path).catch(() => resolve(path));
  const existing = await statIfPresent(target, path);
  if (existing !== undefined && !existing.isFile())
    throw new CheckpointError(
      `${path}: cannot write: it is ${existing.isDirectory() ? "a directory" : "not a regular file"}. ` +
        "Choose another name.",
      { code: existing.isDirectory() ? "is-a-directory" : "not-a-file", details: { path: target } },
    );
  const parent = dirname(target);
  const temporary = join(parent, temporaryName());
  const undoParents = await makeParents(parent, path);
  try {
    await writeNew(temporary, contents, existing && existing.mode & 0o777);
    await rename(temporary, target);
    await syncDirectory(parent);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    await undoParents();
    throw fileError("write", path, error);
  }
}

/** A name that no other writer has; short, so that it is not too long where the real one is not. */
export const temporaryName = (): string => `.graft-${randomBytes(8).toString("hex")}.tmp`;

/** What is at `path`, or undefined if there is nothing. */
export async function statIfPresent(path: string, shown: string) {
  try {
    return await stat(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw fileError("write", shown, error);
  }
}

/**
 * Makes a directory and those above it; returns the topmost one that was not there before, if any. (Node's own recursive
 * mkdir never returns where the system says ENOENT for a directory whose parent exists, as below /proc.)
 */
export async function makeDirectory(directory: string): Promise<string | undefined> {
  const missing: string[] = [];
  for (let path = resolve(directory); !(await exists(path)); path = dirname(path)) missing.unshift(path);
  for (const path of missing)
    await mkdir(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "EEXIST") throw error; // another process was faster
    });
  // What is there may be a file; the system's own error says so best.
  if (missing.length === 0 && !(await stat(directory)).isDirectory()) await mkdir(directory);
  return missing[0];
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw error;
  }
}

/** Makes a directory and those above it; the result removes again those that were made, if still empty. */
export async function makeParents(directory: string, shown: string): Promise<() => Promise<void>> {
  let first: string | undefined;
  try {
    first = await makeDirectory(directory);
  } catch (error) {
    throw fileError("write", shown, error);
  }
  return async () => {
    if (first === undefined) return;
    for (let made = directory; made.length >= first.length; made = dirname(made))
      await rmdir(made).catch(() => undefined);
  };
}

/** Writes a file that is not there yet, and does not return before it is on the disk. */
export async function writeNew(path: string, contents: FileContents, mode?: number): Promise<void> {
  const handle = await open(path, "wx", mode ?? 0o666);
  try {
    if (mode !== undefined) await handle.chmod(mode);
    if (typeof contents === "string") await writeFully(handle, new TextEncoder().encode(contents));
    else if (contents instanceof Uint8Array) await writeFully(handle, contents);
    else for await (const chunk of contents) await writeFully(handle, chunk);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** One call of write may take only a part: on a full disk the part that fits, and only the next call fails. */
async function writeFully(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    const length = Math.min(bytes.length - done, 2 ** 30);
    const { bytesWritten } = await handle.write(bytes, done, length);
    if (bytesWritten === 0) throw Object.assign(new Error("nothing was written"), { code: "ENOSPC" });
    done += bytesWritten;
  }
}

/** Makes renames in a directory last. Windows cannot, and some network file systems will not; they need not. */
export async function syncDirectory(directory: string): Promise<void> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(directory, "r");
    await handle.sync();
  } catch {
    // The file is in place; only how soon that survives a power failure is up to the file system.
  } finally {
    await handle?.close();
  }
}
