import { copyFile, link, mkdir, readdir, realpath, rename, rm, stat } from "node:fs/promises";
import { dirname, join, relative, resolve } from "node:path";
import { CheckpointError } from "../../errors.ts";
import { fileError } from "../file-error.ts";
import { unsafeFileName } from "../file-name.ts";
import {
  type FileContents,
  makeParents,
  statIfPresent,
  syncDirectory,
  temporaryName,
  writeNew,
} from "../writing/node.ts";

/** How often another process may get between a look at the target and the rename before this gives up. */
const attempts = 5;

/**
 * Writes several files into a directory, all or nothing. They are first written, to the disk, in a temporary
 * directory beside it. Then:
 * - where the target does not exist or is empty, that directory takes its place, in one step;
 * - where the target holds nothing but files of these names, the directories are exchanged, in two steps: after
 *   a crash between them the old contents are beside the target, under a name that begins with `.graft-`;
 * - where it holds other things, those stay, and the files are put in place one after the other in the order
 *   of `files`. A failure puts back the old ones. After a crash each file is entirely old or entirely new, so
 *   the file that makes the others count should be last.
 * @throws CheckpointError if that cannot be done; then nothing has changed.
 */
export async function writeDirectoryAtomic(
  directory: string,
  files: ReadonlyMap<string, FileContents>,
): Promise<void> {
  checkNames(directory, files.keys());
  const target = await realpath(directory).catch(() => resolve(directory));
  await checkTarget(directory, target, files.keys());
  const parent = dirname(target);
  const undoParents = await makeParents(parent, directory);
  let stage: string | undefined;
  try {
    stage = await makeStage(target, parent);
    for (const [name, contents] of files) await writeNew(join(stage, name), contents);
    await syncDirectory(stage);
    await install(stage, target, [...files.keys()]);
    await syncDirectory(parent);
  } catch (error) {
    if (stage !== undefined) await remove(stage);
    await undoParents();
    throw fileError("write", directory, error);
  }
}

function checkNames(directory: string, names: Iterable<string>): void {
  for (const name of names) {
    const reason =
      unsafeFileName(name) ?? (name.includes("/") ? "names a file in another directory" : undefined);
    if (reason === undefined) continue;
    throw new CheckpointError(
      `${directory}: cannot write: the file name ${JSON.stringify(name)} ${reason}. Use a plain name.`,
      { code: "unsafe-file-name", details: { path: directory, file: name } },
    );
  }
}

/** What can be known to fail is refused before anything is written. */
async function checkTarget(directory: string, target: string, names: Iterable<string>): Promise<void> {
  const found = await statIfPresent(target, directory);
  if (found === undefined) return;
  if (!found.isDirectory())
    throw new CheckpointError(
      `${directory}: cannot write a directory: there is a file of that name. Remove it, or choose another name.`,
      { code: "exists", details: { path: target } },
    );
  for (const name of names) {
    const file = await statIfPresent(join(target, name), join(directory, name));
    if (file === undefined || file.isFile()) continue;
    throw new CheckpointError(
      `${join(directory, name)}: cannot write: it is ${file.isDirectory() ? "a directory" : "not a regular file"}. ` +
        "Remove it, or choose another directory.",
      { code: file.isDirectory() ? "is-a-directory" : "not-a-file", details: { path: join(target, name) } },
    );
  }
}

/**
 * A new directory on the same file system as the target: beside it, or inside it where it is a mount point or
 * where its parent may not be written to.
 */
async function makeStage(target: string, parent: string): Promise<string> {
  const existing = await stat(target).catch(() => undefined);
  const beside = join(parent, temporaryName());
  const inside = join(target, temporaryName());
  if (existing === undefined) {
    await mkdir(beside);
    return beside;
  }
  if ((await stat(parent)).dev === existing.dev) {
    try {
      await mkdir(beside, existing.mode & 0o777);
      return beside;
    } catch (error) {
      if (!["EACCES", "EPERM", "EROFS"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
    }
  }
  await mkdir(inside);
  return inside;
}

async function install(stage: string, target: string, names: readonly string[]): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const present = await readdir(target).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return [];
      throw error;
    });
    const others = present.some((name) => !names.includes(name));
    if (others || dirname(stage) === target || holdsWorkingDirectory(target))
      return replaceFiles(stage, target, names);
    try {
      return await (present.length === 0 ? rename(stage, target) : exchange(stage, target));
    } catch (error) {
      // Another process has put something there, or taken it away, since the look at it.
      const raced = isTaken(error) || (error as NodeJS.ErrnoException).code === "ENOENT";
      if (!raced || attempt === attempts) throw error;
    }
  }
}

/** A process must not lose the directory it works in. */
function holdsWorkingDirectory(target: string): boolean {
  const path = relative(target, process.cwd());
  return path === "" || !path.startsWith("..");
}

async function exchange(stage: string, target: string): Promise<void> {
  const aside = join(dirname(target), temporaryName());
  await rename(target, aside);
  try {
    await rename(stage, target);
  } catch (error) {
    await rename(aside, target).catch((failure: unknown) => {
      if (!isTaken(failure)) throw failure;
      return remove(aside); // another process has put its directory there, in the place of this one
    });
    throw error;
  }
  await remove(aside);
}

/** Whether a directory could not be put somewhere because there is one already. */
const isTaken = (error: unknown): boolean =>
  ["ENOTEMPTY", "EEXIST"].includes((error as NodeJS.ErrnoException).code ?? "");

async function replaceFiles(stage: string, target: string, names: readonly string[]): Promise<void> {
  const backups = join(stage, ".old");
  await mkdir(backups);
  const undo: (() => Promise<void>)[] = [];
  try {
    for (const name of names) {
      const file = join(target, name);
      const backup = join(backups, name);
      const existed = await keepCopy(file, backup);
      await rename(join(stage, name), file);
      undo.push(() => (existed ? rename(backup, file) : rm(file, { force: true })));
    }
  } catch (error) {
    for (const step of undo.reverse()) await step();
    throw error;
  }
  await syncDirectory(target);
  await remove(stage);
}

/** A second name for the file, or a copy where the file system has no hard links. */
async function keepCopy(file: string, backup: string): Promise<boolean> {
  try {
    await link(file, backup);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
    await copyFile(file, backup);
  }
  return true;
}

/** Leftovers are hidden and harmless; failing to remove them is no reason to call the work undone. */
const remove = (path: string): Promise<void> =>
  rm(path, { recursive: true, force: true }).catch(() => undefined);
