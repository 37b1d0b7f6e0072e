import { failure } from "../failure.ts";
import type { ModuleKind } from "../tree.ts";
import { baseLayer, type LiveModule, LiveParameter, LoraModule } from "./live.ts";
import { checkLinearInit, checkPlainInit, checkVariants } from "./lora-init.ts";
import { checkRank, type LoraLayerName, type LoraRequest, makePlan, tensor } from "./lora-plan.ts";

const convolutions: Partial<Record<ModuleKind, LoraLayerName>> = {
  conv1d: "Conv1d",
  conv2d: "Conv2d",
  conv3d: "Conv3d",
};

/**
 * Wraps a module in the LoRA layer of its kind. Shapes of A and B by kind: Linear (r, in), (out, r); Embedding
 * (r, rows), (dim, r); convolution (r, in, kernel…), (out, r / groups, 1…).
 * May correct `config.fanInFanOut`, as PEFT does, for this layer and all later ones.
 * @throws SelectionError if the kind cannot carry LoRA, or the rank or an option does not fit it.
 * Source: PEFT 0.21 `tuners/lora/layer.py`, dispatch_default and the layer classes.
 */
export function createLora(target: LiveModule, request: LoraRequest): LoraModule {
  const base = target instanceof LoraModule ? baseLayer(target) : target;
  const kind = base.kind as ModuleKind;
  switch (kind) {
    case "embedding":
      return createEmbedding(target, base, request);
    case "conv1d":
    case "conv2d":
    case "conv3d":
      return createConvolution(target, base, request, convolutions[kind]!);
    case "mha":
      return createAttention(target, base, request);
    case "linear":
    case "conv1d_hf":
      correctFanInFanOut(kind, request);
      return createLinear(target, base, request);
    default:
      throw failure(
        "inject",
        "ValueError",
        "unsupported-module-type",
        `"${request.name}" is matched, but a ${base.className} cannot carry LoRA. Supported are Linear, Embedding, ` +
          "Conv1d, Conv2d, Conv3d, transformers' Conv1D and MultiheadAttention. Name the layers inside it, or " +
          "narrow targetModules.",
        { module: request.name, className: base.className },
      );
  }
}

function correctFanInFanOut(kind: "linear" | "conv1d_hf", { config, warnings }: LoraRequest): void {
  if (kind === "linear" && config.fanInFanOut) {
    warnings.add("fan-in-fan-out-set-false", "fanInFanOut is true but the module is a Linear: set to false.");
    config.fanInFanOut = false;
  } else if (kind === "conv1d_hf" && !config.fanInFanOut) {
    warnings.add("fan-in-fan-out-set-true", "fanInFanOut is false but the module is a Conv1D: set to true.");
    config.fanInFanOut = true;
  }
}

function createLinear(target: LiveModule, base: LiveModule, request: LoraRequest): LoraModule {
  const { config, r } = request;
  const inputs = base.info?.in ?? 0;
  const outputs = base.info?.out ?? 0;
  checkRank(request);
  warnAboutBias(base, request);
  checkVariants("Linear", request);
  const { rank, isWeightOrder } = checkLinearInit("Linear", request, inputs, outputs, () => hasWeight(base));
  // QR of a Conv1D's weight, stored (in, out), swaps the roles of A and B
  const isSwapped = rank !== null && isWeightOrder && base.kind === "conv1d_hf";
  if (isSwapped && config.useDora && inputs !== outputs)
    throw failure(
      "inject",
      "RuntimeError",
      "other",
      `initLoraWeights "olora" with useDora is not possible for the Conv1D "${request.name}" (${inputs} × ${outputs}).`,
      { module: request.name },
    );
  const key = `${inputs} ${outputs} ${r} ${request.alpha} ${config.fanInFanOut} ${isSwapped}`;
  let plan = request.tiedTo === null ? request.plans.get(key) : undefined;
  if (plan === undefined) {
    // decompositions give at most min(in, out) components
    const [shapeA, shapeB] =
      rank !== null
        ? [
            [rank, isSwapped ? outputs : inputs],
            [isSwapped ? inputs : outputs, rank],
          ]
        : request.tiedTo === null
          ? [
              [r, inputs],
              [outputs, r],
            ]
          : transposedFactors(request.tiedTo);
    const tensors = [
      tensor("lora_A.default.weight", shapeA!, request),
      tensor("lora_B.default.weight", shapeB!, request, config.initLoraWeights !== "mica"),
    ];
    if (config.loraBias) tensors.push(tensor("lora_B.default.bias", [outputs], request));
    if (config.useDora) tensors.push(tensor("lora_magnitude_vector.default.weight", [outputs], request));
    plan = makePlan("Linear", request, tensors, config);
    if (request.tiedTo === null) request.plans.set(key, plan);
  }
  return new LoraModule(target, plan);
}

const hasWeight = (base: LiveModule): boolean => base.attribute("weight") instanceof LiveParameter;

function createEmbedding(target: LiveModule, base: LiveModule, request: LoraRequest): LoraModule {
  const { config, r } = request;
  const rows = base.info?.in ?? 0;
  const dim = base.info?.out ?? 0;
  if (config.loraBias)
    throw failure(
      "inject",
      "ValueError",
      "lora-bias-on-embedding",
      `loraBias is not possible for the embedding "${request.name}". Set it to false or do not target embeddings.`,
      { module: request.name },
    );
  checkRank(request);
  checkVariants("Embedding", request);
  const tensors = [
    tensor("lora_embedding_A.default", [r, rows], request),
    tensor("lora_embedding_B.default", [dim, r], request, config.initLoraWeights !== "mica"),
  ];
  if (config.useDora) tensors.push(tensor("lora_magnitude_vector.default.weight", [dim], request));
  return new LoraModule(target, makePlan("Embedding", request, tensors, config));
}

function createConvolution(
  target: LiveModule,
  base: LiveModule,
  request: LoraRequest,
  layer: LoraLayerName,
): LoraModule {
  const { config, r, warnings } = request;
  const inputs = base.info?.in ?? 0;
  const outputs = base.info?.out ?? 0;
  const groups = base.info?.extra?.groups ?? 1;
  if (groups > 1)
    warnings.add("groups-conv", "A convolution with groups > 1 is adapted: its adapter cannot be merged.");
  if (r % groups !== 0)
    throw failure(
      "inject",
      "ValueError",
      "rank-not-divisible-by-groups",
      `"${request.name}" is a convolution with ${groups} groups, which do not divide r = ${r}. ` +
        "Choose a multiple of the groups, or do not target it.",
      { module: request.name, r, groups },
    );
  checkRank(request);
  warnAboutBias(base, request);
  checkVariants("Conv", request);
  checkPlainInit(request);
  const dimensions = Number(layer[4]);
  const kernel = base.info?.extra?.kernelSize ?? 1;
  const kernelShape = typeof kernel === "number" ? Array<number>(dimensions).fill(kernel) : [...kernel];
  const ones = Array<number>(dimensions).fill(1);
  const tensors = [
    tensor("lora_A.default.weight", [r, inputs, ...kernelShape], request),
    tensor("lora_B.default.weight", [outputs, r / groups, ...ones], request),
  ];
  if (config.loraBias) tensors.push(tensor("lora_B.default.bias", [outputs], request));
  if (config.useDora)
    tensors.push(tensor("lora_magnitude_vector.default.weight", [1, outputs, ...ones], request));
  return new LoraModule(target, makePlan(layer, request, tensors));
}

/** in_proj carries the outer layer's factors; out_proj becomes a LoRA Linear inside. */
function createAttention(target: LiveModule, base: LiveModule, request: LoraRequest): LoraModule {
  const { config, r } = request;
  const projection = base.children.get("out_proj");
  if (!base.parameters.has("in_proj_weight") || config.useDora || projection === undefined)
    throw failure(
      "inject",
      "ValueError",
      "other",
      `"${request.name}" is a MultiheadAttention ${
        config.useDora ? "and useDora does not work with it" : "whose query, key and value differ in size"
      }. Do not target it.`,
      { module: request.name },
    );
  const inner = createLinear(projection, projection, request);
  base.setChild("out_proj", inner);
  const embed = base.info?.in ?? 0;
  const outputs = base.info?.out ?? 3 * embed;
  checkRank(request);
  warnAboutBias(base, request);
  checkVariants("MultiheadAttention", request);
  checkLinearInit("Linear", request, embed, outputs, () => false);
  warnAboutBias(projection, request);
  // PEFT deletes and registers these weights again around each merge
  base.moveParameterLast("in_proj_weight");
  projection.moveParameterLast("weight");
  const tensors = [
    tensor("lora_A.default.weight", [r, embed], request),
    tensor("lora_B.default.weight", [outputs, r], request),
  ];
  if (config.loraBias) tensors.push(tensor("lora_B.default.bias", [outputs], request));
  return new LoraModule(target, makePlan("MultiheadAttention", request, tensors));
}

/** Shapes of lora_A = Bᵀ (r, dim) and lora_B = Aᵀ (rows, r), from the factors of the embedding that is followed. */
function transposedFactors(embedding: LoraModule): number[][] {
  const shapeOf = (path: string) =>
    embedding.plan.tensors.find((candidate) => candidate.path === path)?.shape;
  const a = shapeOf("lora_embedding_A.default");
  const b = shapeOf("lora_embedding_B.default");
  if (a === undefined || b === undefined)
    throw failure(
      "inject",
      "AttributeError",
      "python-internal",
      "The input embedding carries no LoRA embedding factors, so no layer can be tied to it.",
    );
  return [
    [b[1]!, b[0]!],
    [a[1]!, a[0]!],
  ];
}

function warnAboutBias(base: LiveModule, { config, warnings }: LoraRequest): void {
  if (config.loraBias && base.attribute("bias") === undefined)
    warnings.add(
      "lora-bias-base-has-no-bias",
      `loraBias is true but a targeted ${base.className} has no bias: the adapter cannot be merged into it.`,
      "PeftWarning",
    );
}
