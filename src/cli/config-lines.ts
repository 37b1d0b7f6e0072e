import type { LoraConfig } from "../adapters/index.ts";

/** Fields that say which modules, and with which values. */
const fields = [
  "target_modules",
  "layers_to_transform",
  "layers_pattern",
  "exclude_modules",
  "target_parameters",
  "modules_to_save",
  "r",
  "lora_alpha",
  "rank_pattern",
  "alpha_pattern",
];

/** The interesting part of an adapter_config.json, a line a field. */
export function configLines(config: LoraConfig): string[] {
  const json = config.toJSON();
  return fields.flatMap((field) => {
    const value = json[field];
    const isEmpty = value === null || (typeof value === "object" && Object.keys(value!).length === 0);
    return isEmpty ? [] : [`${field}: ${oneLine(value)}`];
  });
}

/** JSON with blanks after commas and colons, as Python prints it. */
const oneLine = (value: unknown): string =>
  JSON.stringify(value, null, 1)
    .replace(/\n +/g, " ")
    .replace(/([[{]) /g, "$1")
    .replace(/\n([\]}])/g, "$1");
