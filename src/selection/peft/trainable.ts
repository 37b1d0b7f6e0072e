import { failure } from "../failure.ts";
import { parentOf } from "../python.ts";
import { ownSizes } from "../structure/sizes.ts";
import type { ModuleTree } from "../tree.ts";
import { type LiveModule, LiveParameter, sizeOf } from "./live.ts";
import { eachParameter, namedModules, namedParameters } from "./traverse.ts";

/**
 * Unfreezes biases: "all" those of the whole model, "lora_only" (any `…_only`) those of adapted layers.
 * @throws SelectionError `unknown-bias` for other settings.
 * Source: PEFT 0.21 `_mark_only_adapters_as_trainable`.
 */
export function unfreezeBiases(root: LiveModule, bias: string): void {
  if (bias === "none") return;
  if (typeof bias !== "string")
    throw failure(
      "inject",
      "AttributeError",
      "python-internal",
      'bias must be "none", "all" or "lora_only".',
    );
  if (bias === "all") {
    for (const [name, parameter] of namedParameters(root))
      if (name === "bias" || name.endsWith(".bias")) parameter.requiresGrad = true;
  } else if (bias.endsWith("_only")) {
    for (const { module } of namedModules(root, { duplicates: false })) {
      const own = module.kind === "lora" ? module.attribute("bias") : undefined;
      if (own instanceof LiveParameter) own.requiresGrad = true;
    }
  } else
    throw failure(
      "inject",
      "NotImplementedError",
      "unknown-bias",
      `bias ${JSON.stringify(bias)} is unknown. Use "none", "all" or "lora_only".`,
      { bias },
    );
}

/** Numbers of trainable and of all parameters. */
export type Counts = { readonly trainable: number; readonly total: number };

/** Counts each parameter object of a model once. */
export function countParameters(root: LiveModule): Counts {
  let trainable = 0;
  let total = 0;
  eachParameter(root, (parameter) => {
    const { size } = parameter;
    total += size;
    if (parameter.requiresGrad) trainable += size;
  });
  return { trainable, total };
}

/** Parameters of the model itself, tied ones once. */
export function countBase(tree: ModuleTree): number {
  let total = 0;
  for (const size of ownSizes(tree.modules)) total += size;
  if (tree.tiedWeights.length === 0) return total;
  const tied = new Set(tree.tiedWeights.map(([path]) => path));
  const holders = new Set(tree.tiedWeights.map(([path]) => parentOf(path)));
  for (const { name, parameters } of tree.modules)
    if (holders.has(name))
      for (const [own, shape] of parameters)
        if (tied.has(name === "" ? own : `${name}.${own}`)) total -= sizeOf(shape);
  return total;
}
