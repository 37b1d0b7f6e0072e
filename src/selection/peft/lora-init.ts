import { failure } from "../failure.ts";
import type { LoraRequest } from "./lora-plan.ts";

/** Which combinations of LoRA variants each kind of layer implements. */
const variants: Record<string, readonly string[]> = {
  Linear: ["", "useDora", "aloraInvocationTokens", "mica"],
  Embedding: ["", "useDora", "mica"],
  Conv: ["", "useDora"],
  MultiheadAttention: [""],
  ParamWrapper: [""],
};

/** @throws SelectionError if the layer does not implement the variants that the configuration asks for. */
export function checkVariants(layer: keyof typeof variants, { config, name }: LoraRequest): void {
  const wanted = [
    (config.aloraInvocationTokens?.length ?? 0) > 0 ? "aloraInvocationTokens" : "",
    config.initLoraWeights === "mica" ? "mica" : "",
    config.useDora ? "useDora" : "",
  ].filter((variant) => variant !== "");
  if (variants[layer]!.includes(wanted.join("+"))) return;
  throw failure(
    "inject",
    "ValueError",
    "other",
    `"${name}" becomes a ${layer} layer, which does not support ${wanted.join(" with ")}. ` +
      "Do not target it, or use plain LoRA.",
    { target: name, variants: wanted },
  );
}

/**
 * Checks the initialisation of a Linear layer, or of a wrapped parameter, which knows no MiCA.
 * @returns `rank`: the number of components where a decomposition decides it, else null; `isWeightOrder`: the
 * decomposition was of the stored weight, not of (out, in).
 */
export function checkLinearInit(
  layer: "Linear" | "ParamWrapper",
  request: LoraRequest,
  inputs: number,
  outputs: number,
  hasWeight: () => boolean,
): { rank: number | null; isWeightOrder: boolean } {
  const { config, r, name } = request;
  const init = config.initLoraWeights;
  const decomposed = { rank: Math.min(r, inputs, outputs), isWeightOrder: false };
  const plain = { rank: null, isWeightOrder: false };
  if (typeof init !== "string") return plain;
  const readsWeight =
    /^(pissa|corda)/.test(init) ||
    init.toLowerCase() === "olora" ||
    (init.toLowerCase() === "mica" && layer === "Linear") ||
    ["orthogonal", "lora_ga"].includes(init);
  if (readsWeight && !hasWeight())
    throw failure(
      "inject",
      "AttributeError",
      "python-internal",
      `initLoraWeights ${JSON.stringify(init)} needs a weight, which "${name}" does not have. Use true.`,
      { target: name, init },
    );
  if (init.startsWith("pissa")) {
    if (init !== "pissa" && !/^pissa.*_niter_\s*[+-]?\d+\s*$/.test(init))
      throw unknownInit(init, name, 'Use "pissa" or "pissa_niter_4".', "other");
    return decomposed;
  }
  if (init.startsWith("corda"))
    throw unknownInit(init, name, "CorDA needs PEFT's preprocess_corda, which runs in Python only.", "other");
  if (init.toLowerCase() === "olora") return { ...decomposed, isWeightOrder: true };
  // MiCA needs r ≤ min(in, out), but only when the weights are there to be decomposed
  if (init.toLowerCase() === "mica" && layer === "Linear") return plain;
  if (init === "eva" || init === "lora_ga") return plain;
  if (init === "orthogonal") {
    if (r % 2 !== 0)
      throw failure(
        "inject",
        "ValueError",
        "rank-odd-orthogonal",
        `initLoraWeights "orthogonal" needs an even r, but it is ${r} for "${name}".`,
        { target: name, r },
      );
    return plain;
  }
  checkPlainInit(request);
  return plain;
}

/** Layers without decompositions: true, false, null, "gaussian" and "lora_ga" only. */
export function checkPlainInit({ config, name }: LoraRequest): void {
  const init = config.initLoraWeights;
  if (typeof init !== "string" || init === "" || init === "lora_ga" || init.toLowerCase() === "gaussian")
    return;
  throw unknownInit(init, name, 'Use true, false or "gaussian".', "unknown-init");
}

const unknownInit = (init: string, name: string, remedy: string, code: string) =>
  failure(
    "inject",
    "ValueError",
    code,
    `initLoraWeights ${JSON.stringify(init)} is not possible for "${name}". ${remedy}`,
    { target: name, init },
  );
