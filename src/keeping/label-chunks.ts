/** Bytes of the logits of one chunk. Each product with the vocabulary's weight lays it out anew, empty ones too. */
const CHUNK_BYTES = 64 * 2 ** 20;
/** Products with fewer rows than this take longer for each. */
const LEAST_ROWS = 256;
/** Rows that have room in the chunks of a graph; where there are more, chunks grow. */
const ROWS = 1024;

/** Into how many chunks a graph cuts labelled rows (one where the logits of a usual batch are small), and how many rows one takes. */
export function labelChunks(vocabSize: number): { readonly count: number; readonly rows: number } {
  const rows = Math.max(LEAST_ROWS, Math.floor(CHUNK_BYTES / (4 * vocabSize)));
  return { count: Math.ceil(ROWS / rows), rows };
}

/** Labelled rows whose logits are in memory at the same time. */
export function rowsAtOnce(labels: number, vocabSize: number): number {
  const { count, rows } = labelChunks(vocabSize);
  return Math.min(labels, Math.max(rows, Math.ceil(labels / count)));
}

/** Whether the labelled rows are cut into chunks, however few they are: they are then slices of what they were. */
export const areCut = (vocabSize: number): boolean => labelChunks(vocabSize).count > 1;
