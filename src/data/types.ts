import type { Tensor } from "../tensor/index.ts";

/** The label that the loss leaves out, PyTorch's `ignore_index`. */
export const IGNORED_LABEL = -100;

/** One training example. `labels` is as long as `inputIds`, not shifted, and -100 where nothing is learned. */
export type Example = {
  inputIds: Int32Array | number[];
  labels: number[];
  /** Where it came from, for messages: the file, and the line (from 1) if the file has lines. */
  file?: string;
  line?: number;
};

/** What has been seen so far; each row counts once, however often it is read. */
export type DatasetStats = {
  /** Rows read at least once. */
  examples: number;
  tokens: number;
  /** Labels that count after the shift by one position. */
  labelTokens: number;
  /** Rows cut to `maxLength`. */
  truncated: number;
  /** Rows from which nothing is learned, for example because truncation removed the whole completion. */
  withoutLabels: number;
  /** Rows whose completion was tokenized apart from its prompt, because a token would have spanned both. */
  tokenizedApart: number;
  /** Keys of rows that the format does not use. */
  ignoredKeys: string[];
};

/** Examples by index. `get` may be called in any order and concurrently. */
export type Dataset = {
  readonly name: string;
  readonly length: number;
  /** @throws DataError that names file and line if the row cannot be used; RangeError for a wrong index. */
  get(index: number): Promise<Example>;
  readonly stats?: DatasetStats;
  close?(): Promise<void>;
};

/** Examples of equal padded length S, ready for a graph. */
export type Batch = {
  /** [B, S] */
  inputIds: Tensor<"int64">;
  /** [B, S]; 1 for real tokens, 0 for padding. */
  attentionMask: Tensor<"int64">;
  /** [B, S]; not shifted, -100 where nothing is learned. */
  labels: Tensor<"int64">;
  /** Real tokens, without padding. */
  tokens: number;
  /** Labels that count after the shift: how many of labels[:, 1:] are not -100. */
  labelTokens: number;
};

/** Random access to the bytes of a file; what `checkpoint/` calls by the same name fits. */
export type ByteSource = {
  readonly name: string;
  readonly size: number;
  read(start: number, end: number): Promise<Uint8Array>;
  close?(): Promise<void>;
};

/** A directory of files, local or not. */
export type FileStore = {
  readonly name: string;
  open(file: string): Promise<ByteSource | undefined>;
};
