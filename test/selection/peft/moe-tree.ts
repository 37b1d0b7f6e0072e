import type { ModuleInfo, ModuleTree } from "../../../src/selection/index.ts";

/** A mixture of experts with one Linear per projection and expert, as checkpoints of DeepSeek-V3's kind name them. */
export function makeMoeTree(layers: number, experts: number, modelType = "deepseek_moe"): ModuleTree {
  const modules: ModuleInfo[] = [];
  let numParameters = 0;
  const add = (
    name: string,
    className: string,
    kind: ModuleInfo["kind"],
    inputs?: number,
    outputs?: number,
  ) => {
    const parameters: ModuleInfo["parameters"] =
      inputs === undefined || outputs === undefined
        ? []
        : [["weight", kind === "embedding" ? [inputs, outputs] : [outputs, inputs]]];
    numParameters += (inputs ?? 0) * (outputs ?? 0);
    modules.push({ name, className, kind, in: inputs ?? null, out: outputs ?? null, parameters });
  };
  add("", "MoeForCausalLM", "module");
  add("model", "MoeModel", "module");
  add("model.embed_tokens", "Embedding", "embedding", 1000, 64);
  add("model.layers", "ModuleList", "modulelist");
  for (let i = 0; i < layers; i++) {
    const layer = `model.layers.${i}`;
    add(layer, "MoeLayer", "module");
    add(`${layer}.self_attn`, "Attention", "module");
    for (const name of ["q_proj", "k_proj", "v_proj", "o_proj"])
      add(`${layer}.self_attn.${name}`, "Linear", "linear", 64, 64);
    add(`${layer}.mlp`, "MoeBlock", "module");
    add(`${layer}.mlp.gate`, "Linear", "linear", 64, experts);
    add(`${layer}.mlp.experts`, "ModuleList", "modulelist");
    for (let j = 0; j < experts; j++) {
      const expert = `${layer}.mlp.experts.${j}`;
      add(expert, "Expert", "module");
      for (const [name, inputs, outputs] of [
        ["gate_proj", 64, 32],
        ["up_proj", 64, 32],
        ["down_proj", 32, 64],
      ] as const)
        add(`${expert}.${name}`, "Linear", "linear", inputs, outputs);
    }
  }
  add("lm_head", "Linear", "linear", 64, 1000);
  return {
    name: `moe-${layers}x${experts}`,
    modelType,
    className: "MoeForCausalLM",
    config: { modelType, tieWordEmbeddings: false },
    modules,
    inputEmbeddings: "model.embed_tokens",
    outputEmbeddings: "lm_head",
    seqClsHeads: [],
    tiedWeights: [],
    tiedWithEmbedding: [],
    duplicateModules: [],
    numParameters,
    isPretrainedModel: true,
  };
}
