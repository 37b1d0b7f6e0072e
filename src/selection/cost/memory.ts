import type { Figures, MemoryCost } from "./cost.ts";

/** Measured: see docs/cost.md. */
const overhead = { process: 0.5e9, perActivationByte: 0.1 };

/** What a training step is expected to need. */
export function memoryOf(
  { trainableParameters, gradientBytes, optimizerBytes, activationBytes }: Figures,
  frozenParameters: number,
): MemoryCost {
  const frozenBytes = 4 * frozenParameters;
  const trainedBytes = 4 * trainableParameters + gradientBytes + optimizerBytes;
  const overheadBytes = overhead.process + overhead.perActivationByte * activationBytes;
  const totalBytes = frozenBytes + trainedBytes + activationBytes + overheadBytes;
  return { frozenBytes, trainedBytes, activationBytes, overheadBytes, totalBytes };
}
