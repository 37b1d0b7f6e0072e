import type { ModuleTree } from "../../src/selection/index.ts";

/** A module tree as a skeleton file: what `scripts/make_skeletons.py` writes. */
export const skeletonOf = (tree: ModuleTree) => ({
  name: tree.name,
  model_type: tree.modelType,
  class: tree.className,
  config: { model_type: tree.modelType, tie_word_embeddings: tree.config.tieWordEmbeddings },
  is_pretrained_model: tree.isPretrainedModel,
  input_embeddings: tree.inputEmbeddings,
  output_embeddings: tree.outputEmbeddings,
  seq_cls_heads: tree.seqClsHeads,
  tied_weights: tree.tiedWeights,
  tied_with_embedding: tree.tiedWithEmbedding,
  duplicate_modules: tree.duplicateModules,
  num_parameters: tree.numParameters,
  modules: tree.modules.map((module) => [
    module.name,
    module.className,
    module.kind,
    module.in,
    module.out,
    module.parameters,
  ]),
});
