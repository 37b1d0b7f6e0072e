import { defineConfig, type UserConfig } from "tsdown";

const shared: UserConfig = {
  format: "esm",
  platform: "neutral",
  target: "es2022",
  fixedExtension: false,
  deps: { neverBundle: [/^node:/, /^onnxruntime-/, "sharp"] },
};

export default defineConfig([
  // The library stays in its own files, so that bundlers take only what is imported.
  {
    ...shared,
    entry: {
      index: "src/index.ts",
      node: "src/node.ts",
      "selection/index": "src/selection/index.ts",
      "checkpoint/index": "src/checkpoint/index.ts",
      "runtime/worker": "src/runtime/worker.ts",
      "processing/pictures/worker": "src/processing/pictures/worker.ts",
    },
    dts: true,
    unbundle: true,
    clean: true,
  },
  // The command line starts in a fraction of the time from a few files. It finds its workers one folder above its chunks.
  {
    ...shared,
    entry: {
      "cli/main": "src/cli/main.ts",
      "cli/worker": "src/runtime/worker.ts",
      "cli/pictures/worker": "src/processing/pictures/worker.ts",
    },
    platform: "node",
    deps: { ...shared.deps, alwaysBundle: ["zod", "commander"] },
    outputOptions: {
      chunkFileNames: "cli/chunks/[name]-[hash].js",
      // A few large chunks load in half the time of many small ones.
      codeSplitting: {
        groups: [
          { name: "zod", test: /node_modules\/zod\// },
          {
            name: "base",
            test: /node_modules\/commander\/|src\/(?:cli\/(?:errors|output|table|tree|strict|schema-flags|module-tree-view)|checkpoint\/local)/,
          },
          { name: "selection", test: /src\/(?:regex\/|selection\/(?:peft|cost|structure|explain\/lint)\/)/ },
          { name: "adapter", test: /src\/(?:cli\/adapter-flags|adapters\/config)/ },
        ],
      },
    },
    dts: false,
    clean: false,
  },
]);
