import type { MemoryCost } from "./cost.ts";
import type { Outcome } from "./outcome.ts";

/**
 * What measured peaks were above weights, activations and what is trained: the process and the runtime; some copies of the
 * largest result; and the runtime's arena, which fits what comes and goes only so well. See docs/cost.md.
 */
const overhead = { process: 0.25e9, largestResult: 3.25, activations: 0.3 };

/** What a training step is expected to need beside frozen weights of these bytes. */
export function memoryOf({ figures, largestBytes }: Outcome, frozenBytes: number): MemoryCost {
  const { trainableParameters, gradientBytes, optimizerBytes, activationBytes } = figures;
  const trainedBytes = 4 * trainableParameters + gradientBytes + optimizerBytes;
  const overheadBytes =
    overhead.process + overhead.largestResult * largestBytes + overhead.activations * activationBytes;
  const totalBytes = frozenBytes + trainedBytes + activationBytes + overheadBytes;
  return { frozenBytes, trainedBytes, activationBytes, overheadBytes, totalBytes };
}
