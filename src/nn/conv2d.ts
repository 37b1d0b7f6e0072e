import { GraphError } from "../errors.ts";
import { op, type Value } from "../graph/index.ts";
import { Layer } from "./module.ts";
import { Parameter } from "./parameter.ts";

/** Height first. A single number stands for both. */
export type Size2d = number | readonly [height: number, width: number];

export type Conv2dOptions = {
  readonly kernelSize: Size2d;
  readonly stride?: Size2d;
  /** Zeros on both sides of an axis. */
  readonly padding?: Size2d;
  readonly dilation?: Size2d;
  readonly groups?: number;
  readonly bias?: boolean;
};

const both = (size: Size2d): readonly [number, number] => (typeof size === "number" ? [size, size] : size);

/**
 * Convolution of images, as torch.nn.Conv2d.
 * Shapes: x [batch, in, height, width], W [out, in / groups, rows, columns], b [out].
 */
export class Conv2d extends Layer {
  override readonly className = "Conv2d";
  override readonly kind = "conv2d";
  readonly weight: Parameter;
  readonly bias: Parameter | undefined;
  readonly inChannels: number;
  readonly outChannels: number;
  readonly kernelSize: readonly [number, number];
  readonly stride: readonly [number, number];
  readonly padding: readonly [number, number];
  readonly dilation: readonly [number, number];
  readonly groups: number;

  /** @throws GraphError if the groups do not divide the channels. */
  constructor(
    inChannels: number,
    outChannels: number,
    { kernelSize, stride = 1, padding = 0, dilation = 1, groups = 1, bias = true }: Conv2dOptions,
  ) {
    super();
    if (inChannels % groups !== 0 || outChannels % groups !== 0)
      throw new GraphError(
        `Conv2d: ${groups} groups do not divide ${inChannels} and ${outChannels} channels.`,
        {
          code: "shape-mismatch",
          details: { inChannels, outChannels, groups },
        },
      );
    this.inChannels = inChannels;
    this.outChannels = outChannels;
    this.kernelSize = both(kernelSize);
    this.stride = both(stride);
    this.padding = both(padding);
    this.dilation = both(dilation);
    this.groups = groups;
    this.weight = new Parameter([outChannels, inChannels / groups, ...this.kernelSize]);
    this.bias = bias ? new Parameter([outChannels]) : undefined;
  }

  override forward(x: Value): Value {
    const { stride, padding, dilation, groups } = this;
    return op.conv(x, this.weight.value, {
      bias: this.bias?.value,
      strides: stride,
      pads: [...padding, ...padding],
      dilations: dilation,
      group: groups,
    });
  }
}
