/** What needs Node: engines in a worker thread, files on the local disk, metrics files. */
export { saveAdapter } from "./adapters/node.ts";
export {
  directoryStore,
  fileSource,
  writeDirectoryAtomic,
  writeFileAtomic,
  writeSafetensors,
} from "./checkpoint/node.ts";
export { createEngine, listDevices } from "./runtime/node.ts";
export { openJsonlMetrics, openTensorBoardMetrics } from "./training/node.ts";
