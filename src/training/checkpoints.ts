/** Files of a `checkpoint-<step>` folder, beside those of the adapter. */
export const checkpointFiles = {
  optimizer: "optimizer.safetensors",
  state: "trainer_state.json",
} as const;

/** Folder of the checkpoint made after `step` optimizer steps: `checkpoint-<step>`. */
export const checkpointName = (step: number): string => `checkpoint-${step}`;

/** The step of a checkpoint folder; undefined for any other name. */
export function checkpointStep(name: string): number | undefined {
  const match = /^checkpoint-(0|[1-9]\d*)$/.exec(name);
  return match ? Number(match[1]) : undefined;
}

/** Those of the names that are checkpoints, oldest first. */
export const sortCheckpoints = (names: Iterable<string>): string[] =>
  [...names]
    .filter((name) => checkpointStep(name) !== undefined)
    .sort((a, b) => checkpointStep(a)! - checkpointStep(b)!);

/** The checkpoint to resume from, if there is one. */
export const latestCheckpoint = (names: Iterable<string>): string | undefined =>
  sortCheckpoints(names).at(-1);

/**
 * Which checkpoints to delete so that `saveTotalLimit` are left: the oldest, but never the latest nor the best,
 * so two may be left with a limit of one.
 * Source: transformers trainer_utils.py, `rotate_checkpoints`.
 */
export function checkpointsToDelete(
  names: Iterable<string>,
  { saveTotalLimit, best }: { saveTotalLimit?: number | undefined; best?: string | undefined },
): string[] {
  const checkpoints = sortCheckpoints(names);
  if (saveTotalLimit === undefined) return [];
  const isProtected = (name: string) => name === checkpoints.at(-1) || name === best;
  const surplus = checkpoints.length - Math.max(saveTotalLimit, checkpoints.filter(isProtected).length);
  return checkpoints.filter((name) => !isProtected(name)).slice(0, Math.max(0, surplus));
}
