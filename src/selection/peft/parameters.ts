import { failure } from "../failure.ts";
import { compareCodePoints } from "../python.ts";
import { baseLayer, type LiveModule, LiveParameter, LoraModule } from "./live.ts";
import { checkLinearInit, checkVariants } from "./lora-init.ts";
import { checkRank, type LoraRequest, makePlan, tensor } from "./lora-plan.ts";
import { Tails } from "./tails.ts";
import { getSubmodule } from "./traverse.ts";

/** A parameter that `targetParameters` names. */
export type ParameterHit = {
  /** Path of the holding module in the live model, wrappers included. */
  readonly moduleName: string;
  /** Full name without wrappers, e.g. `model.layers.0.mlp.experts.down_proj`. */
  readonly key: string;
  readonly entry: string;
};

/**
 * Finds the targeted parameters in the model as it is now, calling `wrap` at once for each, and not looking into what
 * `wrap` puts in place. Exclusions, layers and saved modules do not count here.
 * Source: PEFT 0.21 `BaseTuner._inject_parameters`.
 */
export function eachTargetedParameter(
  root: LiveModule,
  targets: Iterable<string>,
  wrap: (hit: ParameterHit) => void,
): void {
  const tails = new Tails([...new Set(targets)].sort(compareCodePoints));
  const seen = new Set<LiveModule>();
  const walk = (module: LiveModule, moduleName: string): void => {
    if (seen.has(module)) return;
    seen.add(module);
    const plainName = withoutBaseLayer(moduleName);
    for (const own of new Set(module.parameters.keys())) {
      const key = `${plainName}.${own}`;
      const entry = tails.find(key);
      if (entry !== undefined) {
        if (moduleName === "")
          throw failure(
            "inject",
            "ValueError",
            "other",
            `Parameter "${own}" belongs to the top-level model and cannot carry LoRA. Remove it from targetParameters.`,
            { parameter: own },
          );
        refuseAdapted(root, plainName, key);
        wrap({ moduleName, key, entry });
      }
    }
    for (const [name, child] of [...module.children])
      walk(module.children.get(name) ?? child, moduleName === "" ? name : `${moduleName}.${name}`);
  };
  walk(root, "");
}

/** `experts.base_layer.w` is the parameter w of experts: `.base_layer` only tells of a wrapper. */
const withoutBaseLayer = (name: string): string => name.replaceAll(".base_layer", "");

function refuseAdapted(root: LiveModule, plainName: string, key: string): void {
  const holder = getSubmodule(root, plainName);
  if (!(holder instanceof LoraModule) || holder.plan.spec.layer === "ParamWrapper") return;
  throw failure(
    "inject",
    "ValueError",
    "parameter-of-adapted-layer",
    `Parameter "${key}" belongs to a layer that targetModules adapts already. Remove one of the two; where ` +
      "targetModules is not set, the model's default applies: set it to [].",
    { parameter: key },
  );
}

/**
 * Wraps a module to adapt one of its parameters: a matrix, or a stack (experts, out, in) of them; (experts, in, out)
 * where the module says it is transposed.
 * Shapes with E experts: A (r·E, in), viewed as (E, r, in); B (out, r·E), viewed as (out, r, E).
 * Source: PEFT 0.21 `ParamWrapper`.
 */
export function createParameterLora(target: LiveModule, name: string, request: LoraRequest): LoraModule {
  const base = baseLayer(target);
  const adapted = base.attribute(name);
  const shape = adapted instanceof LiveParameter ? adapted.shape : [];
  if (shape.length !== 2 && shape.length !== 3)
    throw refusal(
      request,
      "parameter-wrong-rank",
      `has ${shape.length} dimensions; only matrices and stacks of them (2 or 3) can carry LoRA`,
    );
  refuseOptions(request);
  checkRank(request);
  checkVariants("ParamWrapper", request);
  const isTransposed = base.info?.extra?.isTransposed === true;
  const experts = shape.length === 3 ? shape[0]! : 1;
  const [outputs, inputs] = isTransposed && shape.length === 3 ? [shape[2]!, shape[1]!] : shape.slice(-2);
  const { rank } = checkLinearInit(
    "ParamWrapper",
    request,
    inputs!,
    outputs!,
    () => base.attribute("weight") instanceof LiveParameter,
  );
  const { r } = request;
  // the orthogonal factors are made for one matrix whatever the number of experts
  const total = rank ?? (request.config.initLoraWeights === "orthogonal" ? r : r * experts);
  const tensors = [
    tensor("lora_A.default.weight", [total, inputs!], request),
    tensor("lora_B.default.weight", [outputs!, total], request),
  ];
  return new LoraModule(target, makePlan("ParamWrapper", request, tensors, { parameterName: name }));
}

function refuseOptions(request: LoraRequest): void {
  const { config } = request;
  if (config.loraDropout) throw refusal(request, "parameter-with-dropout", "does not work with loraDropout");
  if (config.fanInFanOut)
    throw refusal(request, "parameter-with-fan-in-fan-out", "does not work with fanInFanOut");
  if (config.loraBias) throw refusal(request, "parameter-with-lora-bias", "does not work with loraBias");
  if (config.useDora) throw refusal(request, "parameter-with-dora", "does not work with useDora");
}

const refusal = (request: LoraRequest, code: string, why: string) =>
  failure(
    "inject",
    "ValueError",
    code,
    `Parameter "${request.name}" of targetParameters ${why}. Change the option or remove the parameter.`,
    { parameter: request.name },
  );
