export { BatchSampler, type BatchSamplerOptions } from "./batch-sampler.ts";
export { blobSource, textSource } from "./byte-source.ts";
export { type ChatMessage, ChatTemplate } from "./chat-template.ts";
export { type CollateOptions, collate, type LabelLayout, picturesShape } from "./collate.ts";
export { concatDatasets, type HeldOut, memoryDataset, splitDataset, subset } from "./combine.ts";
export { type DataLocation, type OpenDatasetOptions, openDataset } from "./open-dataset.ts";
export { PackedSampler, type PackedSamplerOptions, paddingShare } from "./packed-sampler.ts";
export {
  type BatchIndices,
  exampleLengths,
  type LoadedBatch,
  loadBatches,
  type PrefetchOptions,
  prefetch,
  type Sampler,
  textOf,
} from "./prefetch.ts";
export { type RowKind, rowKinds } from "./row-checks.ts";
export { RowDataset, type RowDatasetOptions } from "./row-dataset.ts";
export type { RowOptions } from "./rows.ts";
export { TextDataset, type TextDatasetOptions } from "./text-dataset.ts";
export { AutoTokenizer, type ChatOptions, type EncodedChat, Tokenizer } from "./tokenizer.ts";
export { readTokenizerFiles, type TokenizerFiles } from "./tokenizer-files.ts";
export {
  type Batch,
  type ByteSource,
  type Dataset,
  type DatasetStats,
  type Example,
  type ExamplePlace,
  type FileStore,
  IGNORED_LABEL,
  type ImageSource,
  type RowProcessor,
  type UnreadPicture,
} from "./types.ts";
