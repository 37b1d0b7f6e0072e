import { UnsupportedModelError } from "../errors.ts";
import { constantOf, type Dim, op, type Value } from "../graph/index.ts";
import { Embedding, Layer, LayerNorm, Linear, Module, ModuleBuffer } from "../nn/index.ts";
import type { VisionSettings } from "./florence2-config.ts";
import { toTokens } from "./florence2-vision.ts";
import type { ImageSize } from "./image-text-lm.ts";

const channelsOf = ({ stages }: VisionSettings): number => stages.at(-1)!.channels;

/** Learned vectors of rows and columns. Source: transformers Florence2VisionLearnedAbsolutePositionEmbedding2D. */
class Florence2VisionLearnedAbsolutePositionEmbedding2D extends Module {
  override readonly className = "Florence2VisionLearnedAbsolutePositionEmbedding2D";
  readonly row_embeddings: Layer;
  readonly column_embeddings: Layer;
  private readonly places: number;

  constructor(settings: VisionSettings) {
    super();
    const channels = channelsOf(settings);
    const half = Math.floor(channels / 2);
    this.places = settings.maxPositions;
    this.row_embeddings = new Embedding(this.places, half);
    this.column_embeddings = new Embedding(this.places, channels - half);
  }

  /** Vectors of all places, [1, height · width, channels]: a column's in front, a row's behind. */
  forward({ height, width }: ImageSize): Value {
    if (height > this.places || width > this.places)
      throw new UnsupportedModelError(
        `The picture is too large: its feature map has ${height} × ${width} places, and the model knows ${this.places} rows and columns. Resize the picture.`,
        { code: "image-too-large", details: { height, width, places: this.places } },
      );
    const columns = this.column_embeddings.forward(op.range(0, width, "int64")); // [width, c]
    const rows = this.row_embeddings.forward(op.range(0, height, "int64")); // [height, c']
    const [c, r] = [columns.shape[1] as number, rows.shape[1] as number];
    const grid = op.concat(
      [
        op.expand(op.unsqueeze(columns, 0), [height, width, c]),
        op.expand(op.unsqueeze(rows, 1), [height, width, r]),
      ],
      2,
    );
    return op.reshape(grid, [1, height * width, c + r]);
  }
}

/** Sines and cosines of a place in time. Source: transformers Florence2VisionPositionalEmbeddingCosine1D. */
class Florence2VisionPositionalEmbeddingCosine1D extends Module {
  override readonly className = "Florence2VisionPositionalEmbeddingCosine1D";
  readonly pos_idx_to_embed: ModuleBuffer;

  constructor(settings: VisionSettings) {
    super();
    this.pos_idx_to_embed = new ModuleBuffer([settings.maxTemporal, channelsOf(settings)]);
  }

  /** The vector of the first place, [1, 1, channels]: a picture is a film of one frame. */
  forward(): Value {
    const channels = this.pos_idx_to_embed.shape[1]!;
    const stored = this.pos_idx_to_embed.value;
    if (stored) return op.unsqueeze(op.slice(stored, 0, 0, 1), 0);
    // sin 0 and cos 0, taking turns
    return constantOf(
      Array.from({ length: channels }, (_, i) => i % 2),
      [1, 1, channels],
    );
  }
}

/** From feature maps to embeddings of tokens. Source: transformers Florence2MultiModalProjector. */
export class Florence2MultiModalProjector extends Layer {
  override readonly className = "Florence2MultiModalProjector";
  readonly image_projection: Layer;
  readonly image_proj_norm: Layer;
  readonly image_position_embed: Florence2VisionLearnedAbsolutePositionEmbedding2D;
  readonly visual_temporal_embed: Florence2VisionPositionalEmbeddingCosine1D;

  constructor(settings: VisionSettings) {
    super();
    const { projectionDim } = settings;
    this.image_projection = new Linear(channelsOf(settings), projectionDim);
    this.image_proj_norm = new LayerNorm(projectionDim);
    this.image_position_embed = new Florence2VisionLearnedAbsolutePositionEmbedding2D(settings);
    this.visual_temporal_embed = new Florence2VisionPositionalEmbeddingCosine1D(settings);
  }

  /** Shapes: x [images, channels, height, width], result [images, 1 + height · width, projection]: the mean of all places first. */
  override forward(x: Value): Value {
    const [, , height, width] = x.shape as [Dim, Dim, number, number];
    const placed = op.add(toTokens(x), this.image_position_embed.forward({ height, width }));
    const tokens = op.add(placed, this.visual_temporal_embed.forward());
    const mean = op.reduceMean(tokens, { axes: [1] });
    return this.image_proj_norm.forward(this.image_projection.forward(op.concat([mean, tokens], 1)));
  }
}
