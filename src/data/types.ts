import type { Tensor } from "../tensor/index.ts";
import type { Place } from "./problem.ts";

/** The label that the loss leaves out, PyTorch's `ignore_index`. */
export const IGNORED_LABEL = -100;

/**
 * One training example. `labels` is -100 where nothing is learned. For a model that continues its input it is as long as
 * `inputIds`, and not shifted; for an encoder–decoder it is what the decoder is to write, of any length.
 */
export type Example = {
  inputIds: Int32Array | number[];
  labels: number[];
  /** The picture that the input is about, as the model reads it: [channels, height, width]. */
  pixelValues?: Tensor<"float32">;
  /** In its stead, where nobody is expected to need it. */
  unreadPicture?: UnreadPicture;
  /** Where it came from, for messages: the file, and the line (from 1) if the file has lines. */
  file?: string;
  line?: number;
};

/** A picture that was not read, because what follows from it is at hand. */
export type UnreadPicture = {
  /** [channels, height, width] */
  readonly shape: readonly number[];
  /** Reads it after all. @throws DataError */
  readonly read: () => Promise<Tensor<"float32">>;
};

/** What has been seen so far; each row counts once, however often it is read. */
export type DatasetStats = {
  /** Rows read at least once. */
  examples: number;
  tokens: number;
  /** Labels that count: after the shift by one position, or for an encoder–decoder all that are not -100. */
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
  /** The same without its picture, which is not read; by default `get`. */
  getText?(index: number): Promise<Example>;
  readonly stats?: DatasetStats;
  close?(): Promise<void>;
};

/** Where an example lies in a batch. Pictures lie in the order of their examples. */
export type ExamplePlace = {
  /** Of the example in the dataset; as `collate` returns it, in the list it was given. */
  readonly index: number;
  readonly row: number;
  /** Column of its first token. */
  readonly start: number;
  /** Tokens. */
  readonly length: number;
  /** Labels: as many as tokens, and where they are; for an encoder–decoder of any number, from column 0 of `labels` on. */
  readonly labels: number;
};

/** Rows of equal padded length S, ready for a graph. A row is an example, or with packing several, one after the other. */
export type Batch = {
  /** [B, S] */
  inputIds: Tensor<"int64">;
  /** [B, S]; 1 for real tokens, 0 for padding. */
  attentionMask: Tensor<"int64">;
  /** [B, S], not shifted, or for an encoder–decoder [B, T]; -100 where nothing is learned. */
  labels: Tensor<"int64">;
  /** [images, channels, height, width]: the pictures of all examples that have one, in their order. */
  pixelValues?: Tensor<"float32">;
  /** In their stead, if one of them was not read. */
  unreadPictures?: {
    readonly shape: readonly number[];
    /** Values of some pictures, by their places among all. @throws DataError */
    readonly read: (places: readonly number[]) => Promise<Tensor<"float32">>;
  };
  /** With packing, [B, S]: 1 for tokens of a row's first example, 2 for those of its second …, 0 for padding. */
  segments?: Tensor<"int64">;
  /** With packing, [B, S]: a token's position in its own example; 0 for padding. */
  positionIds?: Tensor<"int64">;
  /** Where each example lies, in the order in which they were given. */
  places: readonly ExamplePlace[];
  /** Real tokens of the input, without padding. */
  tokens: number;
  /** Labels that count: how many of labels[:, 1:], or for an encoder–decoder of labels, are not -100. */
  labelTokens: number;
};

/** A picture as a row names it. */
export type ImageSource =
  | { readonly path: string }
  | { readonly bytes: Uint8Array; readonly name: string }
  | { readonly url: string }; // data:

/** What rows with pictures need beyond a tokenizer; a model's processor provides it. */
export type RowProcessor = {
  /** Token ids of a prompt behind its picture's placeholders, special tokens included. @throws DataError */
  encodePrompt(prompt: string, place: Place): number[];
  /** Token ids of what is to be written, special tokens included. */
  encodeCompletion(text: string): number[];
  /** A picture as the model reads it: [channels, height, width]. @throws DataError */
  readPixels(image: ImageSource, place: Place): Promise<Tensor<"float32">>;
  /** The cheap checks: that it is there, and that it begins as a picture of a sensible size. @throws DataError */
  checkImage(image: ImageSource, place: Place): Promise<void>;
  close?(): Promise<void>;
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
