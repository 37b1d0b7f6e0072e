/** What a model is for, which decides how it is built. */
export type ModelFamily = "causal" | "seq2seq" | "image-text";

/**
 * Model types whose modules Graft builds itself: those of the registry of models, which is loaded for them only, since it
 * takes longer than reading most headers.
 */
export const knownModelTypes: Readonly<Record<ModelFamily, readonly string[]>> = {
  causal: ["llama", "mistral", "qwen2", "qwen3"],
  seq2seq: ["bart"],
  "image-text": ["florence2"],
};

/** What the class of such a model ends in. */
const classEndings: Readonly<Record<ModelFamily, string>> = {
  causal: "ForCausalLM",
  seq2seq: "ForConditionalGeneration",
  "image-text": "ForConditionalGeneration",
};

/** The family of a model whose modules Graft builds itself; undefined for every other. */
export function familyOf(config: Readonly<Record<string, unknown>>): ModelFamily | undefined {
  const architectures = config["architectures"];
  const architecture: unknown = Array.isArray(architectures) ? architectures[0] : undefined;
  const type = String(config["model_type"]);
  const families = Object.keys(knownModelTypes) as ModelFamily[];
  const family = families.find((name) => knownModelTypes[name].includes(type));
  if (family === undefined) return undefined;
  return typeof architecture !== "string" || architecture.endsWith(classEndings[family]) ? family : undefined;
}
