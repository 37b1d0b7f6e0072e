import { readdir, rm, rmdir, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { type Naming, type PeftModel, WEIGHTS_FILE } from "../../adapters/index.ts";
import { adapterFiles } from "../../adapters/node.ts";
import { readSafetensors, readTensor, safetensorsChunks, type TensorEntry } from "../../checkpoint/index.ts";
import {
  directoryStore,
  type FileContents,
  fileSource,
  makeDirectory,
  writeDirectoryAtomic,
} from "../../checkpoint/node.ts";
import { isGraftError, TrainingError } from "../../errors.ts";
import type { Tensor } from "../../tensor/index.ts";
import {
  checkpointFiles,
  checkpointName,
  checkpointsToDelete,
  latestCheckpoint,
  sortCheckpoints,
} from "../checkpoints.ts";
import type { MetricsWriter } from "../metrics.ts";
import { openJsonlMetrics, openTensorBoardMetrics } from "../node.ts";
import type { RunStore, SavedRun } from "../run-store.ts";
import { parseTrainerState, serializeTrainerState, type TrainerState } from "../state.ts";

const METRICS_FILE = "metrics.jsonl";
const TENSORBOARD_FOLDER = "runs";
const PREFIX_CACHE_FOLDER = "prefix-cache";

/**
 * A run's folder: adapter_config.json and adapter_model.safetensors when it is done, `checkpoint-<step>` folders,
 * trainer_state.json, metrics.jsonl, events for TensorBoard in runs/, and while it goes on what is kept of frozen layers in prefix-cache/.
 */
export class RunFolder implements RunStore {
  readonly location: string;
  private readonly path: string;
  /** The topmost folder that did not exist before. */
  private created: string | undefined;
  /** Files of an earlier run that a fresh one replaces once it has something to put there. */
  private stale: string[] = [];
  /** Files that this run has made in a folder that was there before. */
  private made: string[] = [];
  /** Folder of the checkpoints of the run that goes on. */
  private source: string;
  private saved = false;
  private readonly naming: Naming;

  /** `naming`: names in the finished adapter; checkpoints have the native ones. */
  constructor(location: string, { naming = "native" }: { naming?: Naming } = {}) {
    this.location = location;
    this.naming = naming;
    this.path = resolve(location);
    this.source = this.path;
  }

  async open({
    resume,
    overwrite,
  }: {
    resume: boolean | string;
    overwrite: boolean;
  }): Promise<SavedRun | undefined> {
    const names = await this.names();
    if (resume !== false) return this.load(names, resume);
    const checkpoints = sortCheckpoints(names);
    const unfinished = checkpoints.length > 0 && !names.includes(checkpointFiles.state);
    if (unfinished && !overwrite)
      throw new TrainingError(
        `${this.location} holds an unfinished run (${checkpoints.at(-1)}). Resume it (--resume), replace it (--overwrite), or choose another output folder.`,
        { code: "unfinished-run", details: { location: this.location, checkpoints } },
      );
    this.stale = [...checkpoints, METRICS_FILE, TENSORBOARD_FOLDER, checkpointFiles.state].filter((name) =>
      names.includes(name),
    );
    await this.create();
    return undefined;
  }

  async metrics(resumeStep: number | undefined): Promise<MetricsWriter[]> {
    const options = resumeStep === undefined ? {} : { resumeStep };
    for (const name of this.stale) await rm(join(this.path, name), { recursive: true, force: true });
    this.stale = [];
    this.made = [METRICS_FILE, TENSORBOARD_FOLDER, PREFIX_CACHE_FOLDER];
    return [
      await openJsonlMetrics(join(this.path, METRICS_FILE), options),
      await openTensorBoardMetrics(join(this.path, TENSORBOARD_FOLDER), options),
    ];
  }

  async saveCheckpoint(
    peft: PeftModel,
    optimizer: ReadonlyMap<string, Tensor>,
    state: TrainerState,
    keep: number | undefined,
  ): Promise<string> {
    const name = checkpointName(state.step);
    await peft.materialize();
    const files = adapterFiles(peft);
    files.set(checkpointFiles.optimizer, safetensorsChunks(optimizer, { format: "pt" }));
    files.set(checkpointFiles.state, serializeTrainerState(state));
    await writeDirectoryAtomic(join(this.location, name), files);
    this.saved = true;
    const names = await this.names();
    for (const old of checkpointsToDelete(names, { saveTotalLimit: keep, best: state.best?.checkpoint }))
      await rm(join(this.path, old), { recursive: true, force: true });
    return join(this.location, name);
  }

  async readAdapter(checkpoint: string): Promise<ReadonlyMap<string, TensorEntry>> {
    return (await readSafetensors(await fileSource(join(this.source, checkpoint, WEIGHTS_FILE)))).tensors;
  }

  async finish(peft: PeftModel, state: TrainerState): Promise<string> {
    await peft.materialize();
    const files = new Map<string, FileContents>([
      [checkpointFiles.state, serializeTrainerState(state)],
      ...adapterFiles(peft, { naming: this.naming }),
    ]);
    await writeDirectoryAtomic(this.location, files);
    this.saved = true;
    return this.path;
  }

  async abandon(): Promise<void> {
    if (this.saved) return;
    const made = this.created === undefined ? this.made.map((name) => join(this.path, name)) : [this.path];
    for (const path of made) await rm(path, { recursive: true, force: true });
    if (this.created === undefined) return;
    for (let parent = dirname(this.path); parent.startsWith(this.created); parent = dirname(parent))
      await rmdir(parent).catch(() => undefined); // only if nothing else has come to lie there
  }

  private async names(): Promise<string[]> {
    return readdir(this.path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return [];
      throw unwritable(this.location, error);
    });
  }

  private async create(): Promise<void> {
    try {
      this.created = await makeDirectory(this.path);
      // Permission and space are found wanting now rather than after the first epoch.
      const probe = join(this.path, ".graft-probe");
      await writeDirectoryAtomic(probe, new Map([["probe", "probe"]]));
      await rm(probe, { recursive: true });
    } catch (error) {
      await this.abandon();
      throw unwritable(this.location, error);
    }
  }

  private async load(names: readonly string[], resume: true | string): Promise<SavedRun> {
    const folder = resume === true ? this.latest(names) : resolve(resume);
    if (!(await stat(join(folder, checkpointFiles.state)).catch(() => undefined)))
      throw new TrainingError(`${folder} is no checkpoint: there is no ${checkpointFiles.state} in it.`, {
        code: "nothing-to-resume",
        details: { folder },
      });
    const source = await directoryStore(folder);
    const file = (await source.open(checkpointFiles.state))!;
    const state = parseTrainerState(new TextDecoder().decode(await file.read(0, file.size)), file.name);
    const optimizer = await readSafetensors(await fileSource(join(folder, checkpointFiles.optimizer)));
    const moments = [...optimizer.tensors].map(
      async ([name, entry]) => [name, await readTensor(entry)] as const,
    );
    const adapter = await readSafetensors(await fileSource(join(folder, WEIGHTS_FILE)));
    this.saved = true;
    this.source = dirname(folder);
    this.stale = names.filter((name) => name === checkpointFiles.state); // the run is not finished any more
    return {
      state,
      adapter: adapter.tensors,
      optimizer: new Map(await Promise.all(moments)),
      location: folder,
    };
  }

  private latest(names: readonly string[]): string {
    const name = latestCheckpoint(names);
    if (name === undefined)
      throw new TrainingError(
        `${this.location} has no checkpoint to resume from. Leave --resume out to start a new run.`,
        {
          code: "nothing-to-resume",
          details: { location: this.location },
        },
      );
    return join(this.path, name);
  }
}

function unwritable(location: string, error: unknown): TrainingError {
  // Writing files fails with an error that names the probe, and the system's as its cause.
  const { message, code } = (
    isGraftError(error) && error.cause instanceof Error ? error.cause : error
  ) as NodeJS.ErrnoException;
  return new TrainingError(
    `Cannot write to ${location}: ${message}. Choose another output folder, or change its permissions.`,
    { code: "output-unwritable", details: { location, systemCode: code }, cause: error },
  );
}
