/**
 * Parameter-efficient fine-tuning for TypeScript: LoRA in exactly the layers you name, trained on ONNX Runtime, in Hugging
 * Face PEFT's files.
 *
 *     const model = await AutoModelForCausalLM.fromPretrained("path/to/model");
 *     const peft = getPeftModel(model, new LoraConfig({ r: 8, loraAlpha: 16, targetModules: ["q_proj", "v_proj"] }));
 *     peft.printTrainableParameters();
 *     const tokenizer = await AutoTokenizer.fromPretrained("path/to/model");
 *     const trainDataset = await openDataset("data.jsonl", { tokenizer });
 *     await new Trainer({ model: peft, trainDataset, outputDir: "out" }).train();
 */

// Models and adapters
export {
  type FreshAdapter,
  type FreshAdapterOptions,
  freshAdapter,
  getPeftModel,
  LoraConfig,
  type LoraConfigOptions,
  layoutFor,
  moduleTreeOf,
  type Naming,
  olderTree,
  PeftModel,
  type PythonSnippetOptions,
  parseSelectionFile,
  readSelectionFile,
  type SavedAdapter,
  type SelectionFile,
  type TranslatedConfig,
  toNativeConfig,
  toOlderConfig,
  toPython,
} from "./adapters/index.ts";
// Files
export { blobStore, type FileStore, openStore, urlStore } from "./checkpoint/index.ts";
// Data
export {
  AutoTokenizer,
  type Batch,
  BatchSampler,
  type ChatMessage,
  collate,
  concatDatasets,
  type Dataset,
  type Example,
  memoryDataset,
  openDataset,
  PackedSampler,
  splitDataset,
  subset,
  Tokenizer,
} from "./data/index.ts";
// Errors
export {
  AdapterError,
  CheckpointError,
  DataError,
  GraftError,
  GraphError,
  isGraftError,
  RegexError,
  RuntimeFailure,
  SelectionError,
  TrainingError,
  UnsupportedModelError,
} from "./errors.ts";
// Evaluation of texts
export { evaluateTexts, scoreTexts, type TextPair, type TextScores } from "./evaluation/index.ts";
// Generation
export {
  type Generated,
  type GeneratedAnswer,
  type GeneratedToken,
  type GenerationConfig,
  type GenerationOptions,
  type PicturePrompt,
  type Prompt,
  TextGenerator,
} from "./generation/index.ts";
// Inspection
export {
  type Inspection,
  type InspectionOptions,
  type InspectionWarning,
  readModuleTree,
  type StoredWeights,
} from "./inspection/index.ts";
export {
  AutoModelForCausalLM,
  AutoModelForImageTextToText,
  AutoModelForSeq2SeqLM,
  CausalLM,
  causalModelTypes,
  ImageTextToTextLM,
  imageTextModelTypes,
  LanguageModel,
  loadLanguageModel,
  olderLayoutOf,
  Seq2SeqLM,
  seq2seqModelTypes,
} from "./models/index.ts";
// Pictures
export {
  createRowProcessor,
  type Florence2Answer,
  Florence2Processor,
  type Florence2Task,
  florence2Tasks,
  type ImageInput,
  ImageProcessor,
  type RgbImage,
  readImage,
} from "./processing/index.ts";
// Engine
export type { Device, Engine, EngineOptions, Session } from "./runtime/index.ts";
// Training
export {
  AdamW,
  type BaseWeightsReport,
  type CheckpointingReport,
  type EvaluationResult,
  evaluate,
  type MetricsWriter,
  type PrefixCacheReport,
  quantizeBase,
  type StepEnd,
  Trainer,
  type TrainerCallback,
  type TrainerOptions,
  type TrainingOptions,
  type TrainResult,
} from "./training/index.ts";
