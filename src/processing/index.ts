export {
  formatLocations,
  type ImageSize,
  LOCATION_BINS,
} from "./florence2/locations.ts";
export type { PaddingOptions } from "./florence2/padding.ts";
export {
  type AnswerByKind,
  type BoxesAnswer,
  type Florence2Answer,
  Florence2PostProcessor,
  type PostProcessorOptions,
} from "./florence2/post-processor.ts";
export {
  type Florence2Input,
  type Florence2Inputs,
  Florence2Processor,
  type Florence2ProcessorParts,
} from "./florence2/processor.ts";
export { expandPrompt, type Florence2Task, florence2Tasks } from "./florence2/tasks.ts";
export type { ImageProcessorOptions } from "./images/image-options.ts";
export { ImageProcessor } from "./images/image-processor.ts";
export {
  checkImage,
  type ImageInput,
  MAX_PIXELS,
  type ReadImageOptions,
  readImage,
} from "./images/read-image.ts";
export { resampleFilters, resize } from "./images/resample.ts";
export type { RgbImage } from "./images/rgb-image.ts";
export { createRowProcessor, type RowProcessorOptions } from "./row-processor.ts";
