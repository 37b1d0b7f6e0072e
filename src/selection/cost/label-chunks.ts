/** Rows that have room in the chunks of a graph; where there are more, chunks grow. */
const ROWS = 1024;

/**
 * Labelled rows whose logits are in memory at the same time: chunks of 64 MiB and 256 rows at least, or as many chunks as hold
 * 1,024 rows, of more where there are more rows. As models' losses cut them.
 */
export function rowsAtOnce(labels: number, vocabulary: number): number {
  const rows = Math.max(256, Math.floor(2 ** 24 / vocabulary));
  const chunks = Math.ceil(ROWS / rows);
  return Math.min(labels, Math.max(rows, Math.ceil(labels / chunks)));
}

/** Whether the labelled rows are cut into chunks, however few they are: they are then slices of what they were. */
export const areCut = (vocabulary: number): boolean => rowsAtOnce(ROWS, vocabulary) < ROWS;
