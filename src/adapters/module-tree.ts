import { Embedding, Linear, type Module, type PreTrainedModel } from "../nn/index.ts";
import { type ModuleInfo, type ModuleTree, type NamedShape, parseTreeConfig } from "../selection/tree.ts";

/** A model as layer selection sees it: names, kinds and shapes. */
export function moduleTreeOf(model: PreTrainedModel): ModuleTree {
  const { inputEmbeddingPath: embedding, outputEmbeddingPath: head } = model;
  const tied = model.tiedEmbeddings && embedding !== null && head !== null ? { embedding, head } : undefined;
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
    tiedWeights: tied ? [[`${tied.head}.weight`, `${tied.embedding}.weight`]] : [],
    tiedWithEmbedding: tied ? [tied.head] : [],
    duplicateModules: [],
    numParameters: model.parameterCount(),
    isPretrainedModel: true,
  };
}

function moduleInfo(name: string, module: Module): ModuleInfo {
  const parameters = module.parameters().map(([segment, { shape }]): NamedShape => [segment, shape]);
  const { className, kind } = module;
  if (module instanceof Linear)
    return { name, className, kind, in: module.inFeatures, out: module.outFeatures, parameters };
  if (module instanceof Embedding)
    return { name, className, kind, in: module.rows, out: module.dimension, parameters };
  return { name, className, kind, in: null, out: null, parameters };
}
