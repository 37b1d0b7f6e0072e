/**
 * Model types whose modules Graft builds itself: those of the registry of models, which is loaded for them only, since it
 * takes longer than reading most headers.
 */
export const knownModelTypes: readonly string[] = ["llama", "mistral", "qwen2", "qwen3"];

/** Whether Graft builds the modules of such a model itself. */
export function isKnownModel(config: Readonly<Record<string, unknown>>): boolean {
  const architectures = config["architectures"];
  const architecture: unknown = Array.isArray(architectures) ? architectures[0] : undefined;
  const isCausal = typeof architecture !== "string" || architecture.endsWith("ForCausalLM");
  return isCausal && knownModelTypes.includes(String(config["model_type"]));
}
