/**
 * Labelled rows whose logits are in memory at the same time: chunks of 32 MiB and 128 rows at least, or as many chunks as hold
 * 2,048 rows, of more where there are more rows. As models' losses cut them.
 */
export function rowsAtOnce(labels: number, vocabulary: number): number {
  const rows = Math.max(128, Math.floor(2 ** 23 / vocabulary));
  const chunks = Math.ceil(2048 / rows);
  return Math.min(labels, Math.max(rows, Math.ceil(labels / chunks)));
}
