import type { Dataset } from "../data/index.ts";
import type { Engine } from "../runtime/index.ts";
import { notify, type TrainerCallback } from "./callbacks.ts";
import type { TrainingOptions } from "./options.ts";
import { PrefixCache } from "./prefix-cache/index.ts";
import { epochsSeen } from "./run-state.ts";
import type { TrainerState } from "./state.ts";

type Context = {
  readonly engine: Engine;
  readonly settings: TrainingOptions;
  readonly trainDataset: Dataset;
  readonly callbacks: readonly TrainerCallback[];
};

/** What keeps a run's frozen values, unless it is off. With padding on the left they would depend on the batch. */
export function prefixCacheOf(
  { engine, settings, trainDataset, callbacks }: Context,
  state: TrainerState,
): PrefixCache | undefined {
  const { prefixCache: mode, prefixCacheDtype, prefixCacheLimit, prefixCacheDir, outputDir } = settings;
  if (mode === "off" || settings.paddingSide === "left") return undefined;
  return new PrefixCache({
    mode,
    dtype: prefixCacheDtype,
    maxBytes: prefixCacheLimit && prefixCacheLimit * 1e9,
    directory: prefixCacheDir ?? (outputDir === undefined ? undefined : `${outputDir}/prefix-cache`),
    own: prefixCacheDir === undefined,
    engine,
    examples: trainDataset.length,
    epochs: state.totalEpochs - epochsSeen(state),
    onWarning: (message) => void notify(callbacks, "onWarning", { message }),
  });
}
