/** Checkpoints on the local disk. Loaded only where there is one: a browser never reaches this file. */
export { writeDirectoryAtomic } from "./directories/node.ts";
export { directoryStore, fileSource } from "./local/node.ts";
export { type FileContents, makeDirectory, writeFileAtomic, writeSafetensors } from "./writing/node.ts";
