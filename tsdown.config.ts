import { defineConfig } from "tsdown";

export default defineConfig({
  entry: {
    index: "src/index.ts",
    node: "src/node.ts",
    "selection/index": "src/selection/index.ts",
    "checkpoint/index": "src/checkpoint/index.ts",
    "runtime/worker": "src/runtime/worker.ts",
    "cli/main": "src/cli/main.ts",
  },
  format: "esm",
  platform: "neutral",
  target: "es2022",
  dts: true,
  fixedExtension: false,
  unbundle: true,
  deps: { neverBundle: [/^node:/, /^onnxruntime-/] },
});
