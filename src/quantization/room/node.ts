import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { mkdir, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";

/** What a folder of the cache is called; nothing else is ever removed. */
const FOLDER = /^[0-9a-f]{32}$/;
const REMOVED = ".removed-";
const HOLDER = "used-by-";

/** Milliseconds after which a process of another machine counts as ended. */
const FORGOTTEN = 7 * 24 * 3600 * 1000;

const holding = new Set<string>();
const ownName = (): string => `${HOLDER}${process.pid}@${hostname()}`;

/**
 * Says that this process uses a folder, until it ends. Do so before you read it or write to it: the folder is then not removed, and
 * is the one that was used last. A cache that cannot be written to is never emptied, and needs no such word.
 */
export async function hold(folder: string): Promise<void> {
  const file = join(folder, ownName());
  if (holding.size === 0)
    process.on("exit", () => {
      for (const held of holding) rmSync(held, { force: true });
    });
  holding.add(file);
  await mkdir(folder, { recursive: true })
    .then(() => writeFile(file, ""))
    .catch(() => undefined);
}

/**
 * Removes the least recently used folders of a cache that no process uses, until all take at most `maxBytes`. Never rejects: what
 * cannot be removed stays.
 */
export async function makeRoom(cache: string, maxBytes: number): Promise<void> {
  const names = await readdir(cache).catch(() => []);
  for (const name of names) if (name.startsWith(REMOVED)) await removeAll(join(cache, name));
  const folders = await Promise.all(
    names.filter((name) => FOLDER.test(name)).map((name) => sizeOf(join(cache, name))),
  );
  let bytes = folders.reduce((sum, folder) => sum + folder.bytes, 0);
  for (const folder of folders.sort((a, b) => a.used - b.used)) {
    if (bytes <= maxBytes) return;
    if (await remove(cache, folder.path)) bytes -= folder.bytes;
  }
}

/** Bytes of a folder's files, and when one was last made or removed in it. */
async function sizeOf(path: string): Promise<{ path: string; bytes: number; used: number }> {
  const [own, ...files] = await Promise.all(
    [path, ...(await namesIn(path)).map((name) => join(path, name))].map((file) =>
      stat(file).catch(() => undefined),
    ),
  );
  return { path, bytes: files.reduce((sum, file) => sum + (file?.size ?? 0), 0), used: own?.mtimeMs ?? 0 };
}

/** Whoever holds a folder does so before he looks into it: so it is taken out of sight first, and put back if he came between. */
async function remove(cache: string, folder: string): Promise<boolean> {
  if (await isHeld(folder)) return false;
  const aside = join(cache, `${REMOVED}${randomBytes(8).toString("hex")}`);
  try {
    await rename(folder, aside);
    if (!(await isHeld(aside))) return await removeAll(aside);
    await rename(aside, folder);
    return false;
  } catch {
    return false; // another process removed it, or has made it anew
  }
}

const removeAll = (folder: string): Promise<boolean> =>
  rm(folder, { recursive: true, force: true }).then(
    () => true,
    () => false,
  );

async function isHeld(folder: string): Promise<boolean> {
  for (const name of await namesIn(folder)) {
    const [, pid, host] = /^used-by-(\d+)@(.*)$/.exec(name) ?? [];
    if (pid === undefined) continue;
    if (host === hostname() ? isAlive(Number(pid)) : await isRecent(join(folder, name))) return true;
  }
  return false;
}

const namesIn = (folder: string): Promise<string[]> => readdir(folder).catch(() => []);

const isRecent = (file: string): Promise<boolean> =>
  stat(file).then(
    ({ mtimeMs }) => Date.now() - mtimeMs < FORGOTTEN,
    () => false,
  );

/** Signal 0 is not sent; a process of another user may not be told. */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
