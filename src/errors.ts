/**
 * Errors that a person can act on. Each says what happened, where, and what to do.
 * This file imports nothing, so that every folder may import it.
 */

/** Where an error belongs; also decides the exit code of the command line (see `cli/`). */
export type GraftErrorOptions = {
  /** Stable, machine-readable identifier, e.g. `"no-match"`. */
  code: string;
  /** Data behind the message: file, field, tensor, offsets, nearest names. */
  details?: Record<string, unknown>;
  cause?: unknown;
};

/** Base of every error that Graft throws on purpose. Anything else that escapes is a bug. */
export class GraftError extends Error {
  override readonly name: string = "GraftError";
  readonly code: string;
  readonly details: Record<string, unknown>;

  constructor(message: string, { code, details = {}, cause }: GraftErrorOptions) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.details = details;
  }
}

/** A model file, shard index or config.json is missing, malformed, hostile or incomplete. */
export class CheckpointError extends GraftError {
  override readonly name = "CheckpointError";
}

/** A model type, or a setting of its config.json, that Graft does not implement. */
export class UnsupportedModelError extends GraftError {
  override readonly name = "UnsupportedModelError";
}

/** The layer selection is contradictory, matches nothing, or matches what cannot carry an adapter. */
export class SelectionError extends GraftError {
  override readonly name = "SelectionError";
}

/** A regular expression that Python's `re` would reject, or whose matching exceeds the step bound. */
export class RegexError extends GraftError {
  override readonly name = "RegexError";
}

/** An adapter's configuration or weights are invalid, or belong to another model. */
export class AdapterError extends GraftError {
  override readonly name = "AdapterError";
}

/** A graph that cannot be built: wrong shapes or dtypes, no gradient rule. */
export class GraphError extends GraftError {
  override readonly name = "GraphError";
}

/** ONNX Runtime is missing, cannot create or run a session, or a device is not there. */
export class RuntimeFailure extends GraftError {
  override readonly name = "RuntimeFailure";
}

/** Training or evaluation data cannot be read; names the file and line. */
export class DataError extends GraftError {
  override readonly name = "DataError";
}

/** Training cannot go on: diverged loss, invalid arguments, an unwritable output. */
export class TrainingError extends GraftError {
  override readonly name = "TrainingError";
}

/** Bad command-line usage. */
export class UsageError extends GraftError {
  override readonly name = "UsageError";
}

/** True for errors that Graft throws on purpose, whose message is meant for the user. */
export const isGraftError = (error: unknown): error is GraftError => error instanceof GraftError;

/** Candidates closest to `word` by edit distance, best first; at most `limit`, none that share too little. */
export function nearest(word: string, candidates: Iterable<string>, limit = 3): string[] {
  const scored: [number, string][] = [];
  for (const candidate of new Set(candidates)) {
    const distance = editDistance(word, candidate);
    if (distance <= Math.max(2, Math.floor(Math.max(word.length, candidate.length) * 0.4)))
      scored.push([distance, candidate]);
  }
  return scored
    .sort((a, b) => a[0] - b[0] || (a[1] < b[1] ? -1 : 1))
    .slice(0, limit)
    .map(([, candidate]) => candidate);
}

/** ` (closest: "name")`, or nothing if no candidate is close. */
export function closest(word: string, candidates: Iterable<string>): string {
  const [best] = nearest(word, candidates, 1);
  return best === undefined ? "" : ` (closest: "${best}")`;
}

/** How many problems a message lists before it only counts the rest. */
export const listedProblems = 8;

/** The first few of many, and how many there are besides. */
export const listProblems = (problems: readonly string[]): string =>
  problems.slice(0, listedProblems).join("; ") +
  (problems.length > listedProblems ? `; and ${problems.length - listedProblems} more` : "");

/** Optimal-string-alignment distance: insertions, deletions, substitutions and swaps of neighbours. */
function editDistance(a: string, b: string): number {
  let beforePrevious: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      let best = Math.min(previous[j]! + 1, current[j - 1]! + 1, substitution);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        best = Math.min(best, beforePrevious[j - 2]! + 1);
      current.push(best);
    }
    beforePrevious = previous;
    previous = current;
  }
  return previous[b.length]!;
}
