import { safetensorsChunks } from "../checkpoint/index.ts";
import { type FileContents, writeDirectoryAtomic } from "../checkpoint/node.ts";
import { CONFIG_FILE, WEIGHTS_FILE } from "./files.ts";
import type { Naming } from "./older-adapter.ts";
import type { PeftModel } from "./peft-model.ts";

/** Files of a saved adapter, the one that makes it count last. */
export function adapterFiles(peft: PeftModel, options: { naming?: Naming } = {}): Map<string, FileContents> {
  const { config, tensors, metadata } = peft.files(options);
  return new Map<string, FileContents>([
    [WEIGHTS_FILE, safetensorsChunks(tensors, metadata)],
    [CONFIG_FILE, config],
  ]);
}

/** Writes an adapter's files into a directory: all or nothing. @throws CheckpointError if that cannot be done. */
export async function saveAdapter(
  peft: PeftModel,
  directory: string,
  options: { naming?: Naming } = {},
): Promise<void> {
  await peft.materialize();
  await writeDirectoryAtomic(directory, adapterFiles(peft, options));
}
