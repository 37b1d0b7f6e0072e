import { nearest, UnsupportedModelError } from "../errors.ts";
import type { CausalLM } from "./causal-lm.ts";
import { llama } from "./llama.ts";
import { mistral } from "./mistral.ts";
import { qwen2 } from "./qwen2.ts";
import { qwen3 } from "./qwen3.ts";

/** Builds a model's module tree, without weights, from its config.json; `file` is for messages. */
export type ModelBuilder = (
  config: Readonly<Record<string, unknown>>,
  file: string,
) => { model: CausalLM; warnings: string[] };

/** By `model_type`. */
const causalModels: Readonly<Record<string, ModelBuilder>> = { llama, mistral, qwen2, qwen3 };

/** Model types that can be loaded as causal language models. */
export const causalModelTypes: readonly string[] = Object.keys(causalModels);

/** @throws UnsupportedModelError for a type, or a setting of its config.json, that is not implemented. */
export function buildCausalLM(config: unknown, file: string): { model: CausalLM; warnings: string[] } {
  const raw = config as Readonly<Record<string, unknown>>;
  if (typeof raw !== "object" || raw === null || Array.isArray(raw))
    throw new UnsupportedModelError(`${file}: expected a JSON object.`, {
      code: "unsupported-config",
      details: { file },
    });
  const type = raw["model_type"];
  const build =
    typeof type === "string" && Object.hasOwn(causalModels, type) ? causalModels[type] : undefined;
  if (!build) {
    const close = nearest(String(type), causalModelTypes, 1)[0];
    throw new UnsupportedModelError(
      type === undefined
        ? `${file}: there is no model_type. Implemented: ${causalModelTypes.join(", ")}.`
        : `${file}: model_type "${String(type)}" is not implemented.${close ? ` Did you mean "${close}"?` : ""} Implemented: ${causalModelTypes.join(", ")}.`,
      { code: "unknown-model-type", details: { file, modelType: type, implemented: causalModelTypes } },
    );
  }
  return build(raw, file);
}
