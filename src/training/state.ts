import { z } from "zod";
import { TrainingError } from "../errors.ts";

const count = z.number().int().min(0);
const scalar = z.union([z.number(), z.enum(["NaN", "Infinity", "-Infinity"])]).transform(Number);

/** What was logged at one step: `loss`, `learning_rate`, `grad_norm`, `eval_loss`… as transformers calls them. */
const historyEntry = z.object({ step: count, epoch: z.number().min(0) }).catchall(scalar);
export type HistoryEntry = z.output<typeof historyEntry>;

/** What JSON.parse gave is JSON already; a schema that copies it would lose keys such as "__proto__". */
const json = z.custom<JsonValue>();
export type JsonValue = string | number | boolean | null | JsonValue[] | { [key: string]: JsonValue };

/** Steps that no log entry tells of yet: sums, and the last step's norm and rate. */
const unlogged = z.object({
  steps: count,
  loss: scalar,
  gradNorm: scalar,
  learningRate: scalar,
  tokens: count,
  seconds: z.number(),
});
export type Unlogged = z.output<typeof unlogged>;

/** A quantised layer that the check of products took out of the ordinary. */
const checkedLayer = z.object({
  path: z.string(),
  quantized: z.boolean(),
  rounded: z.object({ forward: z.boolean(), backward: z.boolean() }),
  outliers: z.array(count),
});

/** Everything, besides adapter weights and optimizer moments, that a run needs to go on exactly where it stopped. */
export type TrainerState = {
  /** Optimizer steps done. */
  step: number;
  /** Optimizer steps at which training ends. */
  totalSteps: number;
  /** Whole epochs done. */
  epoch: number;
  /** Batches of the current epoch already used. */
  batchInEpoch: number;
  /** Batches in an epoch; with the two above it gives the share of the data seen. */
  batchesPerEpoch: number;
  /** Epochs that training makes, possibly not whole. */
  totalEpochs: number;
  batchSize: number;
  /** Seed of shuffling, dropout and initial weights. */
  seed: number;
  /** Tokens seen, without padding. */
  tokensSeen: number;
  /** Lowest evaluation loss and the step it was found at. */
  best?: { loss: number; step: number; checkpoint?: string };
  /** Evaluations since the last improvement. */
  evaluationsWithoutImprovement: number;
  /** What was logged, in step order. */
  history: HistoryEntry[];
  /** What the next log entry will tell besides its own step, with `loggingSteps` above 1. */
  unlogged?: Unlogged;
  /** With quantised frozen weights: the layers that the check took out of the ordinary. A run goes on with them as they were. */
  checkedLayers?: z.output<typeof checkedLayer>[];
  /** What must be the same when resuming: options, data, adapter. See {@link assertResumable}. */
  fingerprint: Record<string, JsonValue>;
  /** Versions of what produced the run, e.g. `{ graftjs: "0.1.0", "onnxruntime-node": "1.30.0" }`. */
  versions: Record<string, string>;
};

/** Rises when a later version could no longer resume from what an earlier one wrote. */
const formatVersion = 1;

const stateFile = z.object({
  global_step: count,
  max_steps: count,
  num_train_epochs: z.number().min(0),
  train_batch_size: z.number().int().min(1),
  num_input_tokens_seen: count,
  best_metric: scalar.nullable(),
  best_global_step: count.nullable(),
  best_model_checkpoint: z.string().nullable(),
  log_history: z.array(historyEntry),
  stateful_callbacks: z.object({
    Graft: z.object({
      args: z.object({ format_version: count, seed: z.number().int() }),
      attributes: z.object({
        epoch: count,
        batch_in_epoch: count,
        batches_per_epoch: count,
        evaluations_without_improvement: count,
        unlogged: unlogged.optional(),
        checked_layers: z.array(checkedLayer).optional(),
        fingerprint: z.record(z.string(), json),
        versions: z.record(z.string(), z.string()),
      }),
    }),
  }),
});

/**
 * The text of `trainer_state.json`. Its fields are those of transformers' TrainerState, so that tools which plot
 * `log_history` read it and `TrainerState.load_from_json` loads it; what transformers has no field for is under
 * `stateful_callbacks.Graft`. NaN and infinities become strings.
 */
export function serializeTrainerState(state: TrainerState): string {
  const { best } = state;
  const file = {
    epoch: state.epoch + (state.batchesPerEpoch > 0 ? state.batchInEpoch / state.batchesPerEpoch : 0),
    global_step: state.step,
    max_steps: state.totalSteps,
    num_train_epochs: state.totalEpochs,
    train_batch_size: state.batchSize,
    num_input_tokens_seen: state.tokensSeen,
    best_metric: best?.loss ?? null,
    best_global_step: best?.step ?? null,
    best_model_checkpoint: best?.checkpoint ?? null,
    log_history: state.history,
    stateful_callbacks: {
      Graft: {
        args: { format_version: formatVersion, seed: state.seed },
        attributes: {
          epoch: state.epoch,
          batch_in_epoch: state.batchInEpoch,
          batches_per_epoch: state.batchesPerEpoch,
          evaluations_without_improvement: state.evaluationsWithoutImprovement,
          unlogged: state.unlogged,
          checked_layers: state.checkedLayers,
          fingerprint: state.fingerprint,
          versions: state.versions,
        },
      },
    },
  };
  const text = JSON.stringify(
    file,
    (_, value) => (typeof value === "number" && !Number.isFinite(value) ? String(value) : value),
    2,
  );
  return `${text}\n`;
}

/**
 * Reads what {@link serializeTrainerState} wrote.
 * @param name file name, for error messages.
 * @throws TrainingError if it is not JSON, was written by transformers or a later Graft, or has bad fields; all
 * bad fields are listed.
 */
export function parseTrainerState(text: string, name: string): TrainerState {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw invalid(name, [`it is not JSON (${(cause as Error).message})`], cause);
  }
  const graft = (value as { stateful_callbacks?: { Graft?: { args?: { format_version?: unknown } } } } | null)
    ?.stateful_callbacks?.Graft;
  if (typeof value === "object" && value !== null && "global_step" in value && graft === undefined)
    throw new TrainingError(
      `${name} was not written by Graft (it has no stateful_callbacks.Graft), so training cannot resume from it: ` +
        "shuffling and optimizer state differ. Start a new run from the adapter beside it.",
      { code: "foreign-trainer-state", details: { file: name } },
    );
  const version = graft?.args?.format_version;
  if (typeof version === "number" && version > formatVersion)
    throw new TrainingError(
      `${name} has format version ${version}; this version of Graft reads up to ${formatVersion}. Update graftjs.`,
      { code: "trainer-state-version", details: { file: name, version } },
    );
  const parsed = stateFile.safeParse(value);
  if (!parsed.success)
    throw invalid(
      name,
      parsed.error.issues.map(({ path, message }) => `${path.join(".") || "the whole"}: ${message}`),
    );
  const file = parsed.data;
  const { args, attributes } = file.stateful_callbacks.Graft;
  return {
    step: file.global_step,
    totalSteps: file.max_steps,
    epoch: attributes.epoch,
    batchInEpoch: attributes.batch_in_epoch,
    batchesPerEpoch: attributes.batches_per_epoch,
    totalEpochs: file.num_train_epochs,
    batchSize: file.train_batch_size,
    seed: args.seed,
    tokensSeen: file.num_input_tokens_seen,
    ...(file.best_metric !== null &&
      file.best_global_step !== null && {
        best: {
          loss: file.best_metric,
          step: file.best_global_step,
          ...(file.best_model_checkpoint !== null && { checkpoint: file.best_model_checkpoint }),
        },
      }),
    evaluationsWithoutImprovement: attributes.evaluations_without_improvement,
    history: file.log_history,
    ...(attributes.unlogged && { unlogged: attributes.unlogged }),
    ...(attributes.checked_layers && { checkedLayers: attributes.checked_layers }),
    fingerprint: attributes.fingerprint,
    versions: attributes.versions,
  };
}

/** Fields in which two fingerprints differ, in alphabetical order. */
export function fingerprintDifferences(
  saved: Readonly<Record<string, JsonValue>>,
  current: Readonly<Record<string, JsonValue>>,
): { field: string; saved: JsonValue | undefined; current: JsonValue | undefined }[] {
  return [...new Set([...Object.keys(saved), ...Object.keys(current)])]
    .sort()
    .filter((field) => canonical(saved[field]) !== canonical(current[field]))
    .map((field) => ({ field, saved: saved[field], current: current[field] }));
}

/**
 * Makes sure that a run can go on as if it had never stopped.
 * @throws TrainingError naming every setting that differs from the saved run's, with both values.
 */
export function assertResumable(
  saved: Readonly<Record<string, JsonValue>>,
  current: Readonly<Record<string, JsonValue>>,
): void {
  const differences = fingerprintDifferences(saved, current);
  if (differences.length === 0) return;
  const shown = differences.map(
    (d) =>
      `${d.field} was ${JSON.stringify(d.saved) ?? "not set"}, is now ${JSON.stringify(d.current) ?? "not set"}`,
  );
  throw new TrainingError(
    `Cannot resume: ${shown.join("; ")}. Use the settings of the saved run, or start a new run from its adapter.`,
    { code: "resume-mismatch", details: { differences } },
  );
}

/** JSON with sorted keys, so that order does not matter. */
const canonical = (value: JsonValue | undefined): string | undefined =>
  JSON.stringify(value, (_, inner) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );

const invalid = (name: string, problems: string[], cause?: unknown): TrainingError =>
  new TrainingError(
    `${name} is damaged: ${problems.join("; ")}. Resume from an earlier checkpoint, or start a new run.`,
    { code: "invalid-trainer-state", details: { file: name, problems }, cause },
  );
