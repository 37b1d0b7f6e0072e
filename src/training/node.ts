import { type FileHandle, open, readFile, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import { makeDirectory, writeFileAtomic } from "../checkpoint/node.ts";
import { TrainingError } from "../errors.ts";
import { keepMetricsLines, type MetricsWriter, metricsLine } from "./metrics.ts";
import { encodeFileStart, encodeScalars } from "./tensorboard.ts";

export type MetricsFileOptions = {
  /**
   * The step training resumes after. What the file, or TensorBoard run, holds of later steps is dropped,
   * because they are about to be done again. Without it everything stays and new steps are appended.
   */
  resumeStep?: number;
};

/**
 * Appends one JSON object per step to `path`; see `metricsLine` for the format. Creates missing folders.
 * @throws TrainingError if the file cannot be opened, read or written; `write` rejects with one.
 */
export async function openJsonlMetrics(
  path: string,
  { resumeStep }: MetricsFileOptions = {},
): Promise<MetricsWriter> {
  const handle = await explain(path, async () => {
    await makeDirectory(dirname(path));
    const existing = await readRegularFile(path);
    if (existing !== undefined) {
      const kept = keepMetricsLines(existing, resumeStep);
      if (kept !== existing) await writeFileAtomic(path, kept);
    }
    return open(path, "a");
  });
  return appender(path, handle, (step, scalars, time) => `${metricsLine(step, scalars, time)}\n`);
}

/**
 * Writes an event file for TensorBoard into `directory`: `events.out.tfevents.<seconds>.<host>.<pid>.<n>`.
 * Every call starts a new file; TensorBoard reads all files of a directory as one run.
 * @throws TrainingError if the file cannot be created or written; `write` rejects with one.
 */
export async function openTensorBoardMetrics(
  directory: string,
  { resumeStep }: MetricsFileOptions = {},
): Promise<MetricsWriter> {
  const wallTime = Date.now() / 1000;
  const name = `events.out.tfevents.${Math.floor(wallTime)}.${hostname()}.${process.pid}`;
  const { path, handle } = await explain(join(directory, name), async () => {
    await makeDirectory(directory);
    for (let n = 0; ; n++) {
      const path = join(directory, `${name}.${n}`);
      try {
        return { path, handle: await open(path, "ax") };
      } catch (error) {
        if (errorCode(error) !== "EEXIST") throw error;
      }
    }
  });
  await explain(path, () => handle.appendFile(encodeFileStart(wallTime, resumeStep)));
  return appender(path, handle, encodeScalars);
}

/** A writer over an open file. Writes happen in the order of the calls, also when nobody awaits them. */
function appender(
  path: string,
  handle: FileHandle,
  encode: (step: number, scalars: Readonly<Record<string, number>>, time: number) => string | Uint8Array,
): MetricsWriter {
  let pending: Promise<unknown> = Promise.resolve();
  let closed: Promise<void> | undefined;
  return {
    write(step, scalars) {
      if (closed)
        throw new TrainingError(`Metrics of step ${step} came after ${path} was closed.`, {
          code: "metrics-closed",
          details: { path, step },
        });
      const data = encode(step, scalars, Date.now() / 1000);
      const written = pending.then(() => explain(path, () => handle.appendFile(data)));
      pending = written.catch(() => {}); // reported by the promise that `write` returned
      return written;
    },
    close() {
      closed ??= pending.then(() => explain(path, () => handle.close()));
      return closed;
    },
  };
}

/** Contents of a file; undefined if there is none, or if it is a pipe or device, which cannot be read back. */
async function readRegularFile(path: string): Promise<string | undefined> {
  try {
    return (await stat(path)).isFile() ? await readFile(path, "utf8") : undefined;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

const errorCode = (error: unknown): string | undefined => (error as NodeJS.ErrnoException | undefined)?.code;

const remedies: Record<string, string> = {
  ENOSPC: "the disk is full; free some space",
  EDQUOT: "the disk quota is used up; free some space",
  EACCES: "no permission; choose another folder or change its permissions",
  EPERM: "no permission; choose another folder or change its permissions",
  EROFS: "the file system is read-only; choose another folder",
  ENOTDIR: "a part of the path is a file, not a folder; choose another path",
  EEXIST: "a part of the path is a file, not a folder; choose another path",
  EISDIR: "it is a folder; name a file",
};

/** Runs a file operation and turns what the system says into an error that names the file. */
async function explain<T>(path: string, operation: () => Promise<T>): Promise<T> {
  try {
    return await operation();
  } catch (cause) {
    const code = errorCode(cause);
    const reason = (code && remedies[code]) ?? (cause instanceof Error ? cause.message : String(cause));
    throw new TrainingError(`Cannot write metrics to ${path}: ${reason}.`, {
      code: "metrics-write",
      details: { path, systemCode: code },
      cause,
    });
  }
}
