import type { ModuleTree } from "../tree.ts";

/** What a checkpoint's header says of a tensor. */
export type TensorInfo = {
  readonly name: string;
  readonly shape: readonly number[];
  /** As Graft or PyTorch spell it: "float32", "bfloat16", "uint8". */
  readonly dtype: string;
};

/** A parsed config.json. */
export type RawConfig = Readonly<Record<string, unknown>>;

export type InferOptions = {
  /** What the model is called. */
  readonly name?: string;
  /**
   * Keep the names and shapes of the file, also where transformers gives the model others when it loads it.
   * @default false
   */
  readonly asStored?: boolean;
};

/** Something that the inference had to assume. */
export type InferWarning = {
  readonly code: string;
  readonly message: string;
  readonly details?: Readonly<Record<string, unknown>>;
};

export type InferredTree = {
  readonly tree: ModuleTree;
  /** What was assumed and might be otherwise in the model that PEFT sees. */
  readonly warnings: readonly InferWarning[];
};

export const sizeOf = (shape: readonly number[]): number => {
  let size = 1;
  for (const dim of shape) size *= dim;
  return size;
};

export const isObject = (value: unknown): value is RawConfig =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** The first of these settings that is a number, in config.json or in the part of it that describes the text model. */
export function setting(config: RawConfig, ...names: readonly string[]): number | undefined {
  for (const part of [config, config["text_config"], config["llm_config"], config["decoder"]])
    if (isObject(part))
      for (const name of names) if (typeof part[name] === "number") return part[name] as number;
  return undefined;
}

export const architectureOf = (config: RawConfig): string => {
  const list = config["architectures"];
  const first = Array.isArray(list) ? (list[0] as unknown) : undefined;
  return typeof first === "string" ? first : "";
};
