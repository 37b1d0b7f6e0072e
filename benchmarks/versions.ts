import { createRequire } from "node:module";
import { version } from "../src/training/version.ts";

/** What a measurement of Graft was made with. */
export function versions(): Record<string, string> {
  const { version: onnxruntime } = createRequire(import.meta.url)("onnxruntime-node/package.json") as {
    version: string;
  };
  return { graft: version, node: process.versions.node, onnxruntime };
}
