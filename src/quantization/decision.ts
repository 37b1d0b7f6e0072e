import { columnsOf } from "./encode.ts";
import type { QuantizedLayer } from "./quantize.ts";

/** How a layer multiplies. */
export type LayerDecision = {
  /** Input channels that are kept apart, in float32. */
  readonly outliers: readonly number[];
  /** Directions in which the product is one of integers; in the other it is one of float32 with the weight's codes. */
  readonly rounded: { readonly forward: boolean; readonly backward: boolean };
  /** False if the layer goes back to its weight, as all its products err too much. */
  readonly quantized: boolean;
};

/** Lets a layer multiply as was decided. @throws CheckpointError if the weight of outliers cannot be read. */
export async function decide(
  { linear }: QuantizedLayer,
  { rounded, outliers, quantized }: LayerDecision,
): Promise<void> {
  linear.quantized = quantized
    ? {
        ...linear.quantized!,
        rounded,
        ...(outliers.length > 0 && {
          outliers: { channels: outliers, columns: await columnsOf(linear.weight, outliers) },
        }),
      }
    : undefined;
}

/** Whether a layer multiplies otherwise than unchecked. */
export const isException = ({ rounded, outliers, quantized }: LayerDecision): boolean =>
  !quantized || !rounded.forward || !rounded.backward || outliers.length > 0;
