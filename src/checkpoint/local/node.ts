import { type FileHandle, open, readdir, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { CheckpointError, nearest } from "../../errors.ts";
import { type ByteSource, checkLength, checkRange, type FileStore } from "../byte-source.ts";
import { fileError } from "../file-error.ts";
import { checkFileName } from "../file-name.ts";
import { isPickleName, pickleError } from "../foreign.ts";
import { looksLikeHubName } from "../hub/name.ts";

/** One read call is limited to 2^31 - 1 bytes on some systems. */
const maxReadLength = 2 ** 30;

/** Why a path cannot lead to the file: it, or a directory on the way, is not there. */
const isAbsent = (error: unknown) =>
  ["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "");

/**
 * A local file as a source, called `name` in messages. It is opened for each read, so nothing needs closing.
 * @throws CheckpointError if it is not a readable regular file.
 */
export async function fileSource(path: string, name = path): Promise<ByteSource> {
  const absolute = resolve(path);
  const opened = await stat(absolute).catch((error) => {
    throw fileError("read", name, error);
  });
  if (!opened.isFile())
    throw new CheckpointError(
      `${name}: cannot read: it is ${opened.isDirectory() ? "a directory" : "not a regular file"}. Name a file.`,
      { code: opened.isDirectory() ? "is-a-directory" : "not-a-file", details: { path: absolute } },
    );
  return {
    name,
    size: opened.size,
    path: absolute,
    async read(start, end, { signal } = {}) {
      signal?.throwIfAborted();
      checkRange(name, opened.size, start, end);
      let handle: FileHandle | undefined;
      try {
        handle = await open(absolute, "r");
        const now = await handle.stat();
        if (now.ino !== opened.ino || now.size !== opened.size || now.mtimeMs !== opened.mtimeMs)
          throw new CheckpointError(`${name}: the file changed since it was opened. Open it again.`, {
            code: "changed",
            details: { path: absolute },
          });
        return await readFully(handle, name, start, end, signal);
      } catch (error) {
        signal?.throwIfAborted();
        throw fileError("read", name, error);
      } finally {
        await handle?.close();
      }
    },
  };
}

async function readFully(
  handle: FileHandle,
  name: string,
  start: number,
  end: number,
  signal?: AbortSignal,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(end - start);
  let done = 0;
  while (done < bytes.length) {
    signal?.throwIfAborted();
    const length = Math.min(bytes.length - done, maxReadLength);
    const { bytesRead } = await handle.read(bytes, done, length, start + done);
    if (bytesRead === 0) checkLength(name, start, end, done);
    done += bytesRead;
  }
  return bytes;
}

/** The files of a local directory. Symbolic links are followed, as the Hub's cache is made of them. */
export function directoryStore(path: string): FileStore {
  const absolute = resolve(path);
  return {
    name: path,
    path: absolute,
    async open(file, { signal } = {}) {
      signal?.throwIfAborted();
      checkFileName(path, file);
      const name = join(path, file);
      try {
        await stat(join(absolute, file));
      } catch (error) {
        if (isAbsent(error)) return undefined;
        throw fileError("read", name, error);
      }
      return fileSource(join(absolute, file), name);
    },
    async list() {
      try {
        const entries = await readdir(absolute, { withFileTypes: true });
        return entries.filter((entry) => !entry.isDirectory()).map(({ name }) => name);
      } catch (error) {
        throw fileError("read", path, error);
      }
    },
  };
}

/**
 * The store for a path (or file: URL) that names a directory or one weights file.
 * @param options.orElse opens what has no such path, but the look of a name on the Hub.
 */
export async function openLocal(
  location: string,
  { orElse }: { orElse?: () => Promise<FileStore> } = {},
): Promise<FileStore> {
  const path = location.startsWith("file:") ? fileURLToPath(location) : location;
  let found: Awaited<ReturnType<typeof stat>>;
  try {
    found = await stat(path);
  } catch (error) {
    if (!isAbsent(error)) throw fileError("read", path, error);
    const absent = await notFound(path);
    if (orElse !== undefined && looksLikeHubName(path) && !absent.isNear) return orElse();
    throw absent.error;
  }
  if (found.isDirectory()) return directoryStore(path);
  if (isPickleName(path)) throw pickleError([path]);
  if (!found.isFile())
    throw new CheckpointError(`${path}: not a regular file. Name a directory or a .safetensors file.`, {
      code: "not-a-file",
      details: { path },
    });
  // config.json and the like are looked for beside the file.
  return { ...directoryStore(dirname(path)), name: path, weights: basename(path) };
}

/**
 * Names the part of the path that does not exist, and what is there instead. `isNear`: a local path must have been
 * meant, as its directory is there, or something in this one has nearly the same name.
 */
async function notFound(path: string): Promise<{ error: CheckpointError; isNear: boolean }> {
  let missing = resolve(path);
  let siblings: string[] | undefined;
  while (siblings === undefined) {
    const parent = dirname(missing);
    siblings = await readdir(parent).catch(() => undefined);
    if (siblings === undefined && parent === missing) siblings = [];
    if (siblings === undefined) missing = parent;
  }
  const suggestions = nearest(basename(missing), siblings);
  const isWhole = missing === resolve(path);
  const part = isWhole ? "" : `: there is no ${missing}`;
  const hub = looksLikeHubName(path) ? ` For the model of that name on the Hub, write hf://${path}.` : "";
  const closest = suggestions.length > 0 ? `Closest: ${suggestions.join(", ")}.` : "Check the path.";
  return {
    error: new CheckpointError(`${path}: no such file or directory${part}. ${closest}${hub}`, {
      code: "missing-file",
      details: { path, missing, suggestions },
    }),
    isNear: isWhole && (path.includes("/") || suggestions.length > 0),
  };
}
