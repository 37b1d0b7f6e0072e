/**
 * Imports go one way. A folder may import what its line names, and whatever those import.
 * `errors.ts` may be imported by anyone; only `cli/` and files called `node.ts` touch `node:*`.
 */
const direct = {
  regex: [],
  keeping: [],
  selection: ["regex", "keeping"],
  tensor: [],
  checkpoint: ["tensor"],
  graph: ["tensor", "keeping"],
  nn: ["graph"],
  models: ["nn", "checkpoint"],
  adapters: ["selection", "nn", "checkpoint"],
  inspection: ["models", "adapters"],
  runtime: ["graph"],
  data: ["tensor"],
  processing: ["data", "regex"],
  quantization: ["nn", "checkpoint", "runtime"],
  training: ["models", "adapters", "runtime", "data", "quantization"],
  generation: ["models", "adapters", "runtime", "processing"],
  evaluation: ["generation", "data"],
};

const allowed = (folder, seen = new Set([folder])) => {
  for (const next of direct[folder]) {
    if (!seen.has(next)) {
      seen.add(next);
      allowed(next, seen);
    }
  }
  return seen;
};

/** Files that run only in Node: entries called node.ts, what they alone load, and the command line. */
const nodeOnly = "^src/cli/|/(node|worker)\\.ts$";

module.exports = {
  forbidden: [
    {
      name: "no-cycles",
      severity: "error",
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ["type-only"] } },
    },
    {
      name: "no-orphans",
      severity: "error",
      from: {
        orphan: true,
        path: "^src/",
        pathNot:
          "\\.d\\.ts$|^src/(index|node|selection/index|checkpoint/index|runtime/worker|cli/main)\\.ts$",
      },
      to: {},
    },
    { name: "errors-imports-nothing", severity: "error", from: { path: "^src/errors\\.ts$" }, to: {} },
    ...Object.keys(direct).map((folder) => ({
      name: `${folder}-imports`,
      comment: `${folder}/ may import only: ${[...allowed(folder)].join(", ")}, errors.ts`,
      severity: "error",
      from: { path: `^src/${folder}/` },
      to: { path: "^src/", pathNot: `^src/(${[...allowed(folder)].join("|")})/|^src/errors\\.ts$` },
    })),
    {
      name: "nothing-imports-cli",
      severity: "error",
      from: { pathNot: "^src/cli/" },
      to: { path: "^src/cli/" },
    },
    {
      name: "node-builtins-only-in-node-files",
      severity: "error",
      from: { path: "^src/", pathNot: nodeOnly },
      to: { dependencyTypes: ["core"] },
    },
    {
      name: "pure-folders-use-no-packages-of-the-engine",
      comment: "selection and regex load in a browser without ONNX Runtime",
      severity: "error",
      from: { path: "^src/(regex|keeping|selection|tensor|checkpoint)/" },
      to: { path: "onnxruntime" },
    },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    enhancedResolveOptions: {
      exportsFields: ["exports"],
      conditionNames: ["import", "node", "default", "types"],
    },
    builtInModules: {
      override: require("node:module").builtinModules.flatMap((name) => [name, `node:${name}`]),
    },
  },
};
