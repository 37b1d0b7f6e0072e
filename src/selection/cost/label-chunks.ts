/**
 * Labelled rows whose logits are in memory at the same time: chunks of 64 MiB and 256 rows at least, or as many chunks as hold
 * 1,024 rows, of more where there are more rows. As models' losses cut them.
 */
export function rowsAtOnce(labels: number, vocabulary: number): number {
  const rows = Math.max(256, Math.floor(2 ** 24 / vocabulary));
  const chunks = Math.ceil(1024 / rows);
  return Math.min(labels, Math.max(rows, Math.ceil(labels / chunks)));
}
