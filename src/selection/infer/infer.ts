import { parentOf } from "../python.ts";
import { ownSizes } from "../structure/sizes.ts";
import { type ModuleInfo, type NamedShape, parseTreeConfig } from "../tree.ts";
import { growModules } from "./grow.ts";
import { renameTensors } from "./rename.ts";
import { findVocabulary, tieFlag } from "./tying.ts";
import {
  architectureOf,
  type InferOptions,
  type InferredTree,
  type InferWarning,
  isObject,
  sizeOf,
  type TensorInfo,
} from "./types.ts";

/**
 * A module tree from what a checkpoint's headers tell: names, shapes and dtypes of its tensors. Kinds of modules are
 * inferred; modules without tensors, such as activations, are not in it. Names and shapes are those of the model that
 * transformers 5 makes of the checkpoint, as far as its type is known.
 *
 * @param config parsed config.json, if there is one; says what the class is, how large the vocabulary, what is tied.
 */
export function inferTree(
  tensors: readonly TensorInfo[],
  config: unknown,
  { name, asStored = false }: InferOptions = {},
): InferredTree {
  const settings = isObject(config) ? config : {};
  const warnings: InferWarning[] = [];
  const renamed = asStored ? { tensors, warnings: [] } : renameTensors(tensors, settings);
  warnings.push(...renamed.warnings);
  const className = architectureOf(settings);
  const grown = growModules(renamed.tensors, settings, className === "" ? "Module" : className);
  warnings.push(...quantizationWarnings(grown));
  const vocabulary = findVocabulary(grown.modules, settings, warnings);
  const { modules, tiedWeights, tiedWithEmbedding, inputEmbeddings, outputEmbeddings } = vocabulary;
  const modelType = typeof settings["model_type"] === "string" ? settings["model_type"] : "custom";
  const tie = tieFlag(settings);
  const dtype = settings["dtype"] ?? settings["torch_dtype"] ?? commonDtype(renamed.tensors);
  let stateDict: readonly NamedShape[] | undefined;
  return {
    tree: {
      name: name ?? modelType,
      modelType,
      className: className === "" ? "Module" : className,
      config: {
        ...parseTreeConfig({ ...settings, ...(dtype === undefined ? {} : { dtype }) }),
        modelType,
        ...(tie === undefined ? {} : { tieWordEmbeddings: tie }),
      },
      modules,
      inputEmbeddings,
      outputEmbeddings,
      seqClsHeads: ["classifier", "score"].filter((head) => modules.some((module) => module.name === head)),
      tiedWeights,
      tiedWithEmbedding,
      duplicateModules: [],
      numParameters: countParameters(modules, tiedWeights),
      isPretrainedModel: isObject(config) || outputEmbeddings !== null,
      get stateDict() {
        stateDict ??= renamed.tensors.map(({ name, shape }): NamedShape => [name, shape]);
        return stateDict;
      },
    },
    warnings,
  };
}

/** The dtype of most parameters. */
function commonDtype(tensors: readonly TensorInfo[]): string | undefined {
  const counts = new Map<string, number>();
  for (const { dtype, shape } of tensors) counts.set(dtype, (counts.get(dtype) ?? 0) + sizeOf(shape));
  return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0];
}

function countParameters(
  modules: readonly ModuleInfo[],
  tiedWeights: readonly (readonly [string, string])[],
): number {
  let count = 0;
  for (const size of ownSizes(modules)) count += size;
  if (tiedWeights.length === 0) return count;
  const tied = new Set(tiedWeights.map(([name]) => name));
  const holders = new Set(tiedWeights.map(([name]) => parentOf(name)));
  for (const { name, parameters } of modules)
    if (holders.has(name))
      for (const [parameter, shape] of parameters)
        if (tied.has(name === "" ? parameter : `${name}.${parameter}`)) count -= sizeOf(shape);
  return count;
}

function quantizationWarnings({
  quantization,
  unknownShapes,
}: ReturnType<typeof growModules>): InferWarning[] {
  if (quantization.size === 0) return [];
  const methods = [...quantization].map(([method, count]) => `${method} (${count} layers)`);
  const unknown =
    unknownShapes.length === 0
      ? ""
      : ` The shapes of ${unknownShapes.length} are not known (${unknownShapes.slice(0, 3).join(", ")}…): they count as 0.`;
  return [
    {
      code: "quantized",
      message:
        `the weights are quantised: ${methods.join(", ")}. Shapes and parameters are those of the unpacked layers.` +
        unknown,
      details: { methods: Object.fromEntries(quantization), unknownShapes: unknownShapes.slice(0, 100) },
    },
  ];
}
