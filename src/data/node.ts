import { type FileHandle, open, readdir, stat } from "node:fs/promises";
import { join, sep } from "node:path";
import { DataError } from "../errors.ts";
import type { ByteSource, FileStore } from "./types.ts";

const errorCode = (error: unknown): string => (error as NodeJS.ErrnoException)?.code ?? "";

function unreadable(path: string, error: unknown): DataError {
  const reasons: Record<string, string> = {
    ENOENT: "there is no such file. Check the path",
    ENOTDIR: "a part of the path is not a directory. Check the path",
    EISDIR: "is a directory. Name a file in it",
    EACCES: "permission denied. Change its permissions, or run as a user who may read it",
    EPERM: "permission denied. Change its permissions, or run as a user who may read it",
    EMFILE: "too many files are open. Raise the limit (ulimit -n), or give fewer files",
  };
  const code = errorCode(error);
  const reason =
    reasons[code] ?? `cannot be read (${error instanceof Error ? error.message : String(error)})`;
  return new DataError(`${path}: ${reason}.`, {
    code: "unreadable",
    details: { file: path, errno: code },
    cause: error,
  });
}

/**
 * A local file, opened once and read in pieces; the caller closes it.
 * @throws DataError "unreadable"
 */
export async function openFile(path: string, name = path): Promise<Required<ByteSource>> {
  let handle: FileHandle;
  let size: number;
  try {
    handle = await open(path, "r");
  } catch (error) {
    throw unreadable(path, error);
  }
  try {
    const stats = await handle.stat();
    if (!stats.isFile())
      throw Object.assign(new Error("not a regular file"), stats.isDirectory() ? { code: "EISDIR" } : {});
    size = stats.size;
  } catch (error) {
    await handle.close();
    throw unreadable(path, error);
  }
  return {
    name,
    size,
    async read(start, end) {
      const buffer = new Uint8Array(end - start);
      let filled = 0;
      try {
        while (filled < buffer.length) {
          const { bytesRead } = await handle.read(buffer, filled, buffer.length - filled, start + filled);
          if (bytesRead === 0) break;
          filled += bytesRead;
        }
      } catch (error) {
        throw unreadable(path, error);
      }
      return buffer.subarray(0, filled);
    },
    close: () => handle.close(),
  };
}

/** The files of a local directory. */
export const directoryFiles = (path: string): FileStore => ({
  name: path,
  async open(file) {
    try {
      return await openFile(join(path, file));
    } catch (error) {
      if (error instanceof DataError && error.details["errno"] === "ENOENT") {
        await requireDirectory(path);
        return undefined;
      }
      throw error;
    }
  },
});

async function requireDirectory(path: string): Promise<void> {
  try {
    await stat(path);
  } catch (error) {
    throw new DataError(`${path}: there is no such directory. Check the path.`, {
      code: "unreadable",
      details: { file: path, errno: errorCode(error) },
      cause: error,
    });
  }
}

/** Extensions of data files that a directory is searched for. */
const dataFile = /\.(jsonl|ndjson|json|txt|parquet)$/i;

/** The file that tells of the pictures beside it, in the layout that Hugging Face datasets calls imagefolder. */
const metadataFile = /^metadata\.(jsonl|parquet|csv)$/;

const pictureFile = /\.(jpe?g|png|gif|webp|tiff?|avif)$/i;

/** A file of one of a split's shards, as Hugging Face datasets names them. */
const shard = /^(.+)-\d{5}-of-\d{5}(-[0-9a-f]+)?\.parquet$/;

/**
 * Paths of data files: a file stands for itself, a directory for the data files in it, a pattern (`*`, `?`, `**`)
 * for what it matches. Each argument's files are sorted by name. Of a folder of pictures the metadata is taken, also where it
 * lies in the folder's only part, such as train.
 * @throws DataError "unreadable", "no-files" if one of them yields nothing, "several-splits" if a directory holds parts that
 * are not to be mixed
 */
export async function expandPaths(paths: readonly string[]): Promise<string[]> {
  const files: string[] = [];
  for (const path of paths) {
    const kind = await stat(path).catch((error: unknown) => error);
    if (!(kind instanceof Error) && (kind as Awaited<ReturnType<typeof stat>>).isDirectory()) {
      files.push(...(await directoryFilesOf(path)));
    } else if (kind instanceof Error && /[*?]/.test(path)) {
      const matched = await glob(path);
      if (matched.length === 0)
        throw new DataError(`${path}: no file matches this pattern. Check it, or name the files.`, {
          code: "no-files",
          details: { file: path },
        });
      files.push(...matched);
    } else if (kind instanceof Error) throw unreadable(path, kind);
    else files.push(path);
  }
  return files;
}

/** The data files of a directory. */
async function directoryFilesOf(path: string): Promise<string[]> {
  const entries = (await readdir(path)).sort();
  const metadata = entries.filter((name) => metadataFile.test(name));
  const data = entries.filter((name) => dataFile.test(name) && !metadata.includes(name));
  // Texts beside pictures are no data of their own; other rows are, whatever their names.
  if (metadata.length > 0 && data.every((name) => /\.txt$/i.test(name))) return [metadataOf(path, metadata)];
  const splits = [...new Set(data.flatMap((name) => shard.exec(name)?.[1] ?? []))];
  if (splits.length > 1)
    throw severalSplits(
      path,
      splits,
      splits.map((split) => `${split}-*.parquet`),
    );
  const found = entries.filter((name) => dataFile.test(name));
  if (found.length > 0) return found.map((name) => join(path, name));
  return partOf(path, entries);
}

/** The metadata of a folder whose pictures lie in one folder further down. */
async function partOf(path: string, entries: readonly string[]): Promise<string[]> {
  const parts: [name: string, metadata: string[]][] = [];
  for (const name of entries) {
    const inside = await readdir(join(path, name)).catch(() => []);
    const metadata = inside.filter((file) => metadataFile.test(file));
    if (metadata.length > 0) parts.push([name, metadata]);
  }
  if (parts.length > 1) {
    const names = parts.map(([name]) => name);
    throw severalSplits(path, names, names);
  }
  const [part] = parts;
  if (part !== undefined) return [metadataOf(join(path, part[0]), part[1])];
  throw new DataError(
    `${path}: the directory has no .jsonl, .json or .txt file, nor .parquet. ` +
      (entries.some((name) => pictureFile.test(name))
        ? 'Its pictures need a metadata.jsonl beside them, with a line for each: {"file_name", "prompt", "completion"}.'
        : "Name the files."),
    { code: "no-files", details: { file: path } },
  );
}

function metadataOf(path: string, names: readonly string[]): string {
  const [name] = names as [string];
  const problem =
    names.length > 1
      ? `has ${names.join(" and ")}, which may differ. Keep one of them.`
      : name.endsWith(".csv")
        ? "has its metadata as metadata.csv, which cannot be read. Convert it to metadata.jsonl, one object a line."
        : undefined;
  if (problem === undefined) return join(path, name);
  throw new DataError(`${path}: the folder of pictures ${problem}`, {
    code: "metadata",
    details: { file: path, found: names },
  });
}

const severalSplits = (path: string, splits: readonly string[], names: readonly string[]) =>
  new DataError(
    `${path}: the directory has several parts (${splits.join(", ")}), which are not to be mixed. Name one: ${names.map((name) => join(path, name)).join(" or ")}.`,
    { code: "several-splits", details: { file: path, splits } },
  );

/** Regular files that match a pattern, sorted. */
async function glob(pattern: string): Promise<string[]> {
  const segments = pattern.split(/[\\/]/);
  const fixed = segments.findIndex((segment) => /[*?]/.test(segment));
  const root = segments.slice(0, fixed).join(sep) || (pattern.startsWith("/") ? "/" : ".");
  const matches: string[] = [];
  const visit = async (directory: string, rest: readonly string[]): Promise<void> => {
    const [segment, ...after] = rest;
    if (segment === undefined) return;
    const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
    if (segment === "**") {
      await visit(directory, after);
      for (const entry of entries) if (entry.isDirectory()) await visit(join(directory, entry.name), rest);
      return;
    }
    const wanted = new RegExp(
      `^${segment
        .replace(/[.+^${}()|[\]\\]/g, "\\$&")
        .replace(/\*/g, ".*")
        .replace(/\?/g, ".")}$`,
      "s",
    );
    for (const entry of entries) {
      if (!wanted.test(entry.name) || (entry.name.startsWith(".") && !segment.startsWith("."))) continue;
      const path = join(directory, entry.name);
      if (after.length === 0) {
        if (entry.isFile() || (entry.isSymbolicLink() && (await stat(path)).isFile())) matches.push(path);
      } else if (entry.isDirectory()) await visit(path, after);
    }
  };
  await visit(root, segments.slice(fixed));
  return [...new Set(matches)].sort();
}
