export {
  autoMappingOf,
  type InitLoraWeights,
  type LoraBias,
  LoraConfig,
  type LoraConfigChanges,
  type LoraConfigOptions,
} from "./config.ts";
export { CONFIG_FILE, WEIGHTS_FILE } from "./files.ts";
export { type FreshAdapter, type FreshAdapterOptions, freshAdapter } from "./fresh.ts";
export { injectAdapter } from "./inject.ts";
export { loadAdapterTensors } from "./load.ts";
export { LoraConv2d } from "./lora-conv2d.ts";
export { LoraEmbedding } from "./lora-embedding.ts";
export { ADAPTER_NAME } from "./lora-layer.ts";
export { LoraLinear } from "./lora-linear.ts";
export { moduleTreeOf } from "./module-tree.ts";
export { layoutFor, type Naming, olderAdapter, type SavedAdapter } from "./older-adapter.ts";
export { olderTree } from "./older-tree.ts";
export { getPeftModel, PeftModel } from "./peft-model.ts";
export { type PythonSnippetOptions, toPython } from "./python-snippet.ts";
export { SavedModule } from "./saved-module.ts";
export { parseSelectionFile, readSelectionFile, type SelectionFile } from "./selection-file.ts";
export { type TranslatedConfig, toNativeConfig, toOlderConfig } from "./translate.ts";
