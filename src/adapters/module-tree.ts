import { Conv2d, Embedding, Linear, type Module, type PreTrainedModel } from "../nn/index.ts";
import { type ModuleInfo, type ModuleTree, type NamedShape, parseTreeConfig } from "../selection/tree.ts";

/** A model as layer selection sees it: names, kinds and shapes. */
export function moduleTreeOf(model: PreTrainedModel): ModuleTree {
  const { inputEmbeddingPath: embedding, outputEmbeddingPath: head } = model;
  const tiedWeights = model.tiedWeights();
  return {
    name: model.nameOrPath,
    modelType: model.modelType,
    className: model.className,
    config: {
      ...parseTreeConfig(model.configFields),
      modelType: model.modelType,
      tieWordEmbeddings: model.tiedEmbeddings,
    },
    modules: [...model.namedModules()].map(([name, module]) => moduleInfo(name, module)),
    inputEmbeddings: embedding,
    outputEmbeddings: head,
    seqClsHeads: [],
    tiedWeights,
    tiedWithEmbedding: tiedWeights
      .filter(([, source]) => source === `${embedding}.weight`)
      .map(([path]) => path.slice(0, path.lastIndexOf(".")))
      .sort(),
    duplicateModules: [],
    numParameters: model.parameterCount(),
    isPretrainedModel: true,
    stateDict: [...model.namedModules()].flatMap(([name, module]) => savedTensors(name, module)),
  };
}

/** A module's own parameters and buffers, which torch saves in this order; a shared one under each of its paths. */
const savedTensors = (name: string, module: Module): NamedShape[] =>
  [...module.parameters(), ...module.buffers()].map(([segment, { shape }]) => [
    name === "" ? segment : `${name}.${segment}`,
    shape,
  ]);

function moduleInfo(name: string, module: Module): ModuleInfo {
  const parameters = module.parameters().map(([segment, { shape }]): NamedShape => [segment, shape]);
  const { className, kind } = module;
  if (module instanceof Linear)
    return { name, className, kind, in: module.inFeatures, out: module.outFeatures, parameters };
  if (module instanceof Embedding)
    return { name, className, kind, in: module.rows, out: module.dimension, parameters };
  if (module instanceof Conv2d) {
    const { inChannels, outChannels, kernelSize, stride, padding, groups } = module;
    const extra = { kernelSize, groups, stride, padding };
    return { name, className, kind, in: inChannels, out: outChannels, parameters, extra };
  }
  return { name, className, kind, in: null, out: null, parameters };
}
