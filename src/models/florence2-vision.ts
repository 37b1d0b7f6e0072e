import { type Dim, op, type Value } from "../graph/index.ts";
import {
  Activation,
  Conv2d,
  dropSamples,
  Identity,
  inBlockOf,
  Layer,
  LayerNorm,
  Linear,
  Module,
  ModuleList,
} from "../nn/index.ts";
import { hashText } from "../tensor/random.ts";
import { Florence2VisionChannelAttention, Florence2VisionWindowAttention } from "./florence2-attention.ts";
import type { StageSettings, VisionSettings } from "./florence2-config.ts";
import type { ImageSize } from "./image-text-lm.ts";

/** [batch, channels, height, width] to [batch, height · width, channels]. */
export function toTokens(x: Value): Value {
  const [batch, channels, height, width] = x.shape as [Dim, number, number, number];
  return op.transpose(op.reshape(x, [batch, channels, height * width]), [0, 2, 1]);
}

/** Undoes `toTokens`. */
function toImage(x: Value, { height, width }: ImageSize): Value {
  const [batch, , channels] = x.shape as [Dim, number, number];
  return op.reshape(op.transpose(x, [0, 2, 1]), [batch, channels, height, width]);
}

const sizeOf = ({ shape }: Value): ImageSize => ({ height: shape[2] as number, width: shape[3] as number });

/** Leaves its input out for some samples in training. Source: transformers Florence2DropPath. */
class Florence2DropPath extends Layer {
  override readonly className = "Florence2DropPath";
  private readonly p: number;
  private readonly seed: number;

  constructor(p: number, path: string) {
    super();
    this.p = p;
    this.seed = hashText(path);
  }

  override forward(x: Value): Value {
    return dropSamples(x, this.p, this.seed);
  }
}

const dropPath = (rate: number, path: string): Layer =>
  rate > 0 ? new Florence2DropPath(rate, path) : new Identity();

/** fc2(act(fc1 x)). Source: transformers Florence2VisionMLP. */
class Florence2VisionMLP extends Layer {
  override readonly className = "Florence2VisionMLP";
  readonly activation_fn: Activation;
  readonly fc1: Layer;
  readonly fc2: Layer;

  constructor({ activation, mlpRatio }: VisionSettings, { channels }: StageSettings) {
    super();
    const inner = Math.trunc(channels * mlpRatio);
    this.activation_fn = new Activation(activation);
    this.fc1 = new Linear(channels, inner, { bias: true });
    this.fc2 = new Linear(inner, channels, { bias: true });
  }

  override forward(x: Value): Value {
    return this.fc2.forward(this.activation_fn.forward(this.fc1.forward(x)));
  }
}

/** A convolution that shrinks the picture, with a norm over channels before or after. Source: transformers Florence2VisionConvEmbed. */
class Florence2VisionConvEmbed extends Layer {
  override readonly className = "Florence2VisionConvEmbed";
  readonly conv: Layer;
  readonly norm: Layer;
  private readonly prenorm: boolean;

  constructor(
    inChannels: number,
    { channels, patchSize, patchStride, patchPadding, prenorm }: StageSettings,
  ) {
    super();
    this.conv = new Conv2d(inChannels, channels, {
      kernelSize: patchSize,
      stride: patchStride,
      padding: patchPadding,
    });
    this.norm = new LayerNorm(prenorm ? inChannels : channels);
    this.prenorm = prenorm;
  }

  /** Shapes: x [batch, in, height, width], result [batch, channels, height', width']. */
  override forward(x: Value): Value {
    const normalize = (image: Value): Value =>
      op.transpose(this.norm.forward(op.transpose(image, [0, 2, 3, 1])), [0, 3, 1, 2]);
    return this.prenorm ? this.conv.forward(normalize(x)) : normalize(this.conv.forward(x));
  }
}

const depthwise = ({ channels }: StageSettings): Conv2d =>
  new Conv2d(channels, channels, { kernelSize: 3, padding: 1, groups: channels });

/**
 * Half of a block: x ← x + conv x, then x ← x + attention(norm x), then x ← x + conv x, then x ← x + MLP(norm x). The
 * convolutions are depth-wise.
 */
type Half = {
  readonly conv1: Layer;
  readonly norm1: Layer;
  readonly drop_path1: Layer;
  readonly conv2: Layer;
  readonly norm2: Layer;
  readonly ffn: Layer;
  readonly drop_path2: Layer;
};

/** Shape of x and of the result: [batch, channels, height, width]. */
function forwardHalf(half: Half, x: Value, attend: (tokens: Value) => Value): Value {
  const size = sizeOf(x);
  const mixed = toTokens(op.add(half.conv1.forward(x), x));
  const attended = op.add(mixed, half.drop_path1.forward(attend(half.norm1.forward(mixed))));
  const image = toImage(attended, size);
  const again = toTokens(op.add(half.conv2.forward(image), image));
  const output = op.add(again, half.drop_path2.forward(half.ffn.forward(half.norm2.forward(again))));
  return toImage(output, size);
}

/** Source: transformers Florence2VisionSpatialBlock. */
class Florence2VisionSpatialBlock extends Module {
  override readonly className = "Florence2VisionSpatialBlock";
  readonly conv1: Layer;
  readonly norm1: Layer;
  readonly window_attn: Florence2VisionWindowAttention;
  readonly drop_path1: Layer;
  readonly conv2: Layer;
  readonly norm2: Layer;
  readonly ffn: Layer;
  readonly drop_path2: Layer;

  constructor(settings: VisionSettings, stage: StageSettings, rate: number, path: string) {
    super();
    this.conv1 = depthwise(stage);
    this.norm1 = new LayerNorm(stage.channels);
    this.window_attn = new Florence2VisionWindowAttention(settings, stage);
    this.drop_path1 = dropPath(rate, `${path}.drop_path1`);
    this.conv2 = depthwise(stage);
    this.norm2 = new LayerNorm(stage.channels);
    this.ffn = new Florence2VisionMLP(settings, stage);
    this.drop_path2 = dropPath(rate, `${path}.drop_path2`);
  }

  forward(x: Value): Value {
    return forwardHalf(this, x, (tokens) => this.window_attn.forward(tokens, sizeOf(x)));
  }
}

/** Source: transformers Florence2VisionChannelBlock. */
class Florence2VisionChannelBlock extends Module {
  override readonly className = "Florence2VisionChannelBlock";
  readonly conv1: Layer;
  readonly norm1: Layer;
  readonly channel_attn: Florence2VisionChannelAttention;
  readonly drop_path1: Layer;
  readonly conv2: Layer;
  readonly norm2: Layer;
  readonly ffn: Layer;
  readonly drop_path2: Layer;

  constructor(settings: VisionSettings, stage: StageSettings, rate: number, path: string) {
    super();
    this.conv1 = depthwise(stage);
    this.norm1 = new LayerNorm(stage.channels);
    this.channel_attn = new Florence2VisionChannelAttention(settings, stage);
    this.drop_path1 = dropPath(rate, `${path}.drop_path1`);
    this.conv2 = depthwise(stage);
    this.norm2 = new LayerNorm(stage.channels);
    this.ffn = new Florence2VisionMLP(settings, stage);
    this.drop_path2 = dropPath(rate, `${path}.drop_path2`);
  }

  forward(x: Value): Value {
    return forwardHalf(this, x, (tokens) => this.channel_attn.forward(tokens));
  }
}

/** Source: transformers Florence2VisionBlock. */
class Florence2VisionBlock extends Module {
  override readonly className = "Florence2VisionBlock";
  readonly spatial_block: Florence2VisionSpatialBlock;
  readonly channel_block: Florence2VisionChannelBlock;

  constructor(
    settings: VisionSettings,
    stage: StageSettings,
    [spatial, channel]: readonly [number, number],
    path: string,
  ) {
    super();
    this.spatial_block = new Florence2VisionSpatialBlock(settings, stage, spatial, `${path}.spatial_block`);
    this.channel_block = new Florence2VisionChannelBlock(settings, stage, channel, `${path}.channel_block`);
  }

  forward(x: Value): Value {
    return this.channel_block.forward(this.spatial_block.forward(x));
  }
}

/** The vision tower. Source: Ding et al. 2022, "DaViT"; transformers Florence2VisionBackbone. */
export class Florence2VisionBackbone extends Module {
  override readonly className = "Florence2VisionBackbone";
  readonly convs: ModuleList<Florence2VisionConvEmbed>;
  readonly blocks: ModuleList<ModuleList<Florence2VisionBlock>>;
  private readonly settings: VisionSettings;

  constructor(settings: VisionSettings) {
    super();
    this.settings = settings;
    const { stages, inChannels } = settings;
    this.convs = new ModuleList(
      stages.map((stage, i) => new Florence2VisionConvEmbed(stages[i - 1]?.channels ?? inChannels, stage)),
    );
    this.blocks = new ModuleList(
      stages.map(
        (stage, i) =>
          new ModuleList(
            stage.dropPath.map(
              (rates, j) => new Florence2VisionBlock(settings, stage, rates, `vision_tower.blocks.${i}.${j}`),
            ),
          ),
      ),
    );
  }

  /** Shapes: pixels [images, channels, height, width], result [images, channels', height', width']. */
  forward(pixels: Value): Value {
    return this.convs.items.reduce((image, conv, i) => {
      const start = conv.forward(image);
      return this.blocks.items[i]!.items.reduce(
        (hidden, block) => inBlockOf(hidden, (x) => block.forward(x)),
        start,
      );
    }, pixels);
  }

  /** Numbers of rows per picture of the values that dropouts see: one (dropped paths), windows and feature maps. */
  noiseRows(image: ImageSize): number[] {
    const { windowSize: side } = this.settings;
    const counts = this.featureSizes(image).flatMap(({ height, width }) => [
      height * width,
      Math.ceil(height / side) * Math.ceil(width / side) * side * side,
    ]);
    return [...new Set([1, ...counts])];
  }

  /** Sizes of a picture's feature maps, stage by stage; the last is the result's. Less than 1 where it is too small. */
  featureSizes(image: ImageSize): ImageSize[] {
    let size = image;
    return this.settings.stages.map(({ patchSize, patchStride, patchPadding }) => {
      const shrink = (length: number): number =>
        Math.floor((length + 2 * patchPadding - patchSize) / patchStride) + 1;
      size = { height: shrink(size.height), width: shrink(size.width) };
      return size;
    });
  }
}
