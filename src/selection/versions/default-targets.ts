import { defaultTargetModules } from "../peft/defaults.ts";
import type { RuleChange } from "./changes.ts";
import { compareReleases, currentRelease, type PeftRelease, parseRelease } from "./version.ts";

/** Since when a model type has default targets; the ones of PEFT 0.3 are left out. */
export const defaultTargetsSince: Readonly<Record<string, string>> = {
  gpt_bigcode: "0.4.0",
  mpt: "0.4.0",
  RefinedWeb: "0.5.0",
  RefinedWebModel: "0.5.0",
  btlm: "0.5.0",
  codegen: "0.5.0",
  falcon: "0.5.0",
  mistral: "0.6.0",
  stablelm: "0.6.0",
  phi: "0.7.0",
  mixtral: "0.8.0",
  gemma: "0.9.0",
  qwen2: "0.12.0",
  gemma2: "0.13.0",
  gemma3_text: "0.16.0",
  llama4: "0.16.0",
  qwen3: "0.16.0",
  rwkv: "0.18.0",
  rwkv7: "0.18.0",
  gemma4: "0.19.0",
  nemotron_h: "0.20.0",
};

/** The one default that was replaced: phi's, with the model code of transformers 4.37. */
const phiBefore080 = ["Wqkv", "out_proj", "fc1", "fc2"];

/** Default targets of a model type in a release; undefined where it had none. */
export function defaultTargetsAt(
  modelType: string,
  release: PeftRelease,
): string | readonly string[] | undefined {
  if (!Object.hasOwn(defaultTargetModules, modelType)) return undefined;
  const isBefore = (version: string) => compareReleases(release, parseRelease(version)!) < 0;
  const since = Object.hasOwn(defaultTargetsSince, modelType) ? defaultTargetsSince[modelType] : undefined;
  if (since !== undefined && isBefore(since)) return undefined;
  if (modelType === "phi" && isBefore("0.8.0")) return phiBefore080;
  return defaultTargetModules[modelType];
}

/** What changed about the default targets of a model type after a release. */
export function changesOfDefaults(modelType: string, release: PeftRelease): RuleChange[] {
  const then = defaultTargetsAt(modelType, release);
  const now = defaultTargetsAt(modelType, parseRelease(currentRelease)!);
  if (then === now) return [];
  const since = then === undefined ? defaultTargetsSince[modelType]! : "0.8.0";
  return [
    {
      id: "default-targets",
      since,
      what:
        then === undefined
          ? `Models of type ${modelType} have default targets; before, they had none.`
          : `The default targets of ${modelType} are ${[now].flat().join(", ")}; before, ${[then].flat().join(", ")}.`,
      reference: "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING",
      before: {},
    },
  ];
}
