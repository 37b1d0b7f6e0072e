import { type Dim, dimAdd, op, type Value } from "../graph/index.ts";
import {
  causalMask,
  dropFeatures,
  type Embedding,
  inBlock,
  inBlockOf,
  type Layer,
  LayerNorm,
  Linear,
  Module,
  ModuleBuffer,
  ModuleList,
  PositionEmbedding,
  paddingMask,
  ScaledEmbedding,
} from "../nn/index.ts";
import { hashText } from "../tensor/random.ts";
import { type BartSettings, readBartConfig } from "./bart-config.ts";
import { BartDecoderLayer, BartEncoderLayer } from "./bart-layers.ts";
import type { ModelBuilder } from "./registry.ts";
import {
  type DecoderCacheLayout,
  type DecoderInputs,
  type DecoderKeyValues,
  type EncoderInputs,
  Seq2SeqLM,
} from "./seq2seq-lm.ts";

const tokenEmbedding = (
  { vocabSize, hiddenSize, embedScale, padTokenId }: BartSettings,
  shared?: Embedding,
): Embedding =>
  new ScaledEmbedding(vocabSize, hiddenSize, {
    className: "BartScaledWordEmbedding",
    scale: embedScale,
    paddingIndex: padTokenId,
    ...(shared && { weight: shared.weight }),
  });

const positionEmbedding = ({ maxPositions, hiddenSize }: BartSettings): Embedding =>
  new PositionEmbedding(maxPositions, hiddenSize, { className: "BartLearnedPositionalEmbedding", offset: 2 });

/** Vectors of places (int64 [tokens]), [1, tokens, hidden]. */
const placeVectors = (embedding: Layer, places: Value): Value => op.unsqueeze(embedding.forward(places), 0);

/** The places of `tokens` tokens after `past` others. */
const placesFrom = (past: Dim, tokens: Dim): Value => op.range(past, dimAdd(past, tokens), "int64");

/** Source: transformers BartEncoder. */
export class BartEncoder extends Module {
  override readonly className = "BartEncoder";
  readonly embed_tokens: Layer;
  readonly embed_positions: Layer;
  readonly layers: ModuleList<BartEncoderLayer>;
  readonly layernorm_embedding: Layer;
  private readonly settings: BartSettings;

  /** `shared` is the embedding whose weight this one's is, if it has none of its own. */
  constructor(settings: BartSettings, shared?: Embedding) {
    super();
    const { hiddenSize, encoder } = settings;
    this.settings = settings;
    this.embed_tokens = tokenEmbedding(settings, shared);
    this.embed_positions = positionEmbedding(settings);
    this.layers = new ModuleList(
      Array.from(
        { length: encoder.layers },
        (_, i) => new BartEncoderLayer(settings, encoder, `encoder.layers.${i}`),
      ),
    );
    this.layernorm_embedding = new LayerNorm(hiddenSize);
  }

  /** Last hidden states, [batch, source, hidden]. */
  forward({ attentionMask, ...inputs }: EncoderInputs): Value {
    const embedded =
      "inputsEmbeds" in inputs ? inputs.inputsEmbeds : this.embed_tokens.forward(inputs.inputIds);
    const placed = op.add(embedded, placeVectors(this.embed_positions, placesFrom(0, embedded.shape[1]!)));
    const start = dropFeatures(
      this.layernorm_embedding.forward(placed),
      this.settings.dropout,
      hashText("encoder.layernorm_embedding"),
    );
    const mask = paddingMask(attentionMask);
    return this.layers.items.reduce(
      (hidden, layer) => inBlockOf(hidden, (x) => layer.forward(x, mask)),
      start,
    );
  }
}

/** Source: transformers BartDecoder. */
export class BartDecoder extends Module {
  override readonly className = "BartDecoder";
  readonly embed_tokens: Layer;
  readonly embed_positions: Layer;
  readonly layers: ModuleList<BartDecoderLayer>;
  readonly layernorm_embedding: Layer;
  private readonly settings: BartSettings;

  /** `shared` is the embedding whose weight this one's is, if it has none of its own. */
  constructor(settings: BartSettings, shared?: Embedding) {
    super();
    const { hiddenSize, decoder } = settings;
    this.settings = settings;
    this.embed_tokens = tokenEmbedding(settings, shared);
    this.embed_positions = positionEmbedding(settings);
    this.layers = new ModuleList(
      Array.from(
        { length: decoder.layers },
        (_, i) => new BartDecoderLayer(settings, decoder, `decoder.layers.${i}`),
      ),
    );
    this.layernorm_embedding = new LayerNorm(hiddenSize);
  }

  /** Last hidden states [batch, target, hidden], and the keys and values of every layer. */
  forward(inputs: DecoderInputs): { hidden: Value; present: DecoderKeyValues[] } {
    const { decoderInputIds, decoderAttentionMask, attentionMask } = inputs;
    const queries = decoderInputIds.shape[1]!;
    const pastLength: Dim = inputs.past?.[0]?.self.key.shape[2] ?? 0;
    const pass = {
      mask: causalMask(decoderAttentionMask, { queries, past: pastLength }),
      encoderMask: paddingMask(attentionMask),
    };
    const placed = op.add(
      this.embed_tokens.forward(decoderInputIds),
      placeVectors(this.embed_positions, inputs.places ?? placesFrom(pastLength, queries)),
    );
    let hidden = dropFeatures(
      this.layernorm_embedding.forward(placed),
      this.settings.dropout,
      hashText("decoder.layernorm_embedding"),
    );
    const present = this.layers.items.map((layer, i) => {
      const result = inputs.past
        ? layer.forward(hidden, pass, inputs.past[i]!)
        : inBlock([hidden, inputs.encoderHidden], (x, source) => layer.forward(x, pass, source));
      hidden = result.output;
      return result.present;
    });
    return { hidden, present };
  }
}

/** Encoder and decoder without a head. Source: transformers BartModel. */
export class BartModel extends Module {
  override readonly className = "BartModel";
  readonly shared: Layer;
  readonly encoder: BartEncoder;
  readonly decoder: BartDecoder;

  constructor(settings: BartSettings) {
    super();
    const shared = tokenEmbedding(settings);
    const tied = settings.tiedEmbeddings ? shared : undefined;
    this.shared = shared;
    this.encoder = new BartEncoder(settings, tied);
    this.decoder = new BartDecoder(settings, tied);
  }
}

/** BART with a vocabulary head. Source: Lewis et al. 2019; transformers BartForConditionalGeneration. */
export class BartForConditionalGeneration extends Seq2SeqLM {
  override readonly className = "BartForConditionalGeneration";
  override readonly modelType = "bart";
  readonly model: BartModel;
  readonly lm_head: Layer;
  readonly final_logits_bias: ModuleBuffer;
  override readonly inputEmbeddingPath = "model.shared";
  override readonly outputEmbeddingPath = "lm_head";
  private readonly settings: BartSettings;

  constructor(settings: BartSettings) {
    super();
    const { hiddenSize, vocabSize, tiedEmbeddings } = settings;
    this.settings = settings;
    this.model = new BartModel(settings);
    const { weight } = this.model.shared as Embedding;
    this.lm_head = new Linear(hiddenSize, vocabSize, tiedEmbeddings ? { weight } : {});
    this.final_logits_bias = new ModuleBuffer([1, vocabSize]);
  }

  override get vocabSize(): number {
    return this.settings.vocabSize;
  }
  override get maxPositions(): number {
    return this.settings.maxPositions;
  }
  override get tiedEmbeddings(): boolean {
    return this.settings.tiedEmbeddings;
  }
  override get padTokenId(): number {
    return this.settings.padTokenId;
  }
  override get decoderStartTokenId(): number {
    return this.settings.decoderStartTokenId;
  }
  override get decoderCacheLayout(): DecoderCacheLayout {
    const { hiddenSize, decoder } = this.settings;
    return { layers: decoder.layers, heads: decoder.heads, headDim: hiddenSize / decoder.heads };
  }

  override encode(inputs: EncoderInputs): Value {
    return this.model.encoder.forward(inputs);
  }

  override decode(inputs: DecoderInputs): { hidden: Value; present: DecoderKeyValues[] } {
    return this.model.decoder.forward(inputs);
  }

  /** The bias is zero, and left out, where the checkpoint has none. */
  override logits(hidden: Value): Value {
    const scores = this.lm_head.forward(hidden);
    const bias = this.final_logits_bias.value;
    return bias ? op.add(scores, op.reshape(bias, [this.settings.vocabSize])) : scores;
  }
}

export const bart: ModelBuilder<Seq2SeqLM> = (raw, file) => {
  const { settings, warnings } = readBartConfig(raw, file);
  return { model: new BartForConditionalGeneration(settings), warnings };
};
