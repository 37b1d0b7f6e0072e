import { type Dim, dimMultiply, op, type Value } from "../graph/index.ts";
import { groupedAttention, type Layer, Linear, Module, mergeHeads } from "../nn/index.ts";
import type { StageSettings, VisionSettings } from "./florence2-config.ts";
import type { ImageSize } from "./image-text-lm.ts";

/** Queries, keys and values [batch, heads, tokens, size] from x [batch, tokens, 3 · heads · size]. */
function splitQkv(x: Value, heads: number): [q: Value, k: Value, v: Value] {
  const [batch, tokens, width] = x.shape as [Dim, Dim, number];
  const size = width / 3 / heads;
  const parts = op.transpose(op.reshape(x, [batch, tokens, 3, heads, size]), [2, 0, 3, 1, 4]);
  const part = (i: number): Value => op.squeeze(op.slice(parts, 0, i, i + 1), 0);
  return [part(0), part(1), part(2)];
}

/**
 * Attention within windows of a feature map that do not overlap; a map that they do not divide is padded with zeros on the
 * right and at the bottom, which take part as they are. Source: transformers Florence2VisionWindowAttention.
 */
export class Florence2VisionWindowAttention extends Module {
  override readonly className = "Florence2VisionWindowAttention";
  readonly qkv: Layer;
  readonly proj: Layer;
  private readonly heads: number;
  private readonly windowSize: number;

  constructor({ windowSize, qkvBias }: VisionSettings, { channels, heads }: StageSettings) {
    super();
    this.qkv = new Linear(channels, 3 * channels, { bias: qkvBias });
    this.proj = new Linear(channels, channels, { bias: true });
    this.heads = heads;
    this.windowSize = windowSize;
  }

  /** Shape of x and of the result: [batch, height · width, channels]. */
  forward(x: Value, { height, width }: ImageSize): Value {
    const [batch, tokens, channels] = x.shape as [Dim, number, number];
    const { windowSize: side, heads } = this;
    const [down, across] = [Math.ceil(height / side), Math.ceil(width / side)];
    const [bottom, right] = [down * side - height, across * side - width];
    const image = op.reshape(x, [batch, height, width, channels]);
    const lower = bottom === 0 ? image : op.pad(image, 1, 0, bottom);
    const padded = right === 0 ? lower : op.pad(lower, 2, 0, right);

    const cut = op.reshape(padded, [batch, down, side, across, side, channels]);
    const count = dimMultiply(batch, down * across);
    const windows = op.reshape(op.transpose(cut, [0, 1, 3, 2, 4, 5]), [count, side * side, channels]);
    const [q, k, v] = splitQkv(this.qkv.forward(windows), heads);
    const attended = mergeHeads(groupedAttention(q, k, v, { scale: (channels / heads) ** -0.5 }));
    const projected = this.proj.forward(attended);

    const apart = op.reshape(projected, [batch, down, across, side, side, channels]);
    const merged = op.reshape(op.transpose(apart, [0, 1, 3, 2, 4, 5]), [
      batch,
      down * side,
      across * side,
      channels,
    ]);
    const upper = bottom === 0 ? merged : op.slice(merged, 1, 0, height);
    const cropped = right === 0 ? upper : op.slice(upper, 2, 0, width);
    return op.reshape(cropped, [batch, tokens, channels]);
  }
}

/**
 * Attention of channels to the channels of their group, over all places of the feature map.
 * Source: Ding et al. 2022, "DaViT"; transformers Florence2VisionChannelAttention.
 */
export class Florence2VisionChannelAttention extends Module {
  override readonly className = "Florence2VisionChannelAttention";
  readonly qkv: Layer;
  readonly proj: Layer;
  private readonly groups: number;

  constructor({ qkvBias }: VisionSettings, { channels, groups }: StageSettings) {
    super();
    this.qkv = new Linear(channels, 3 * channels, { bias: qkvBias });
    this.proj = new Linear(channels, channels, { bias: true });
    this.groups = groups;
  }

  /** Shape of x and of the result: [batch, tokens, channels]. */
  forward(x: Value): Value {
    const tokens = x.shape[1] as number;
    const [q, k, v] = splitQkv(this.qkv.forward(x), this.groups); // [batch, groups, tokens, size]
    // Both products read rows of channels as they lie: a transpose that a product absorbs costs nothing.
    const scores = op.mul(op.matmul(op.transposeLast(q), k), tokens ** -0.5); // [batch, groups, size, size]
    const attended = op.matmul(v, op.transposeLast(op.softmax(scores)));
    return this.proj.forward(mergeHeads(attended));
  }
}
