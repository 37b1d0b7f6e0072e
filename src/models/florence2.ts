import { UnsupportedModelError } from "../errors.ts";
import type { Value } from "../graph/index.ts";
import { type Embedding, type Layer, Linear, Module, type OlderLayout } from "../nn/index.ts";
import { BartModel } from "./bart.ts";
import { type Florence2Settings, readFlorence2Config } from "./florence2-config.ts";
import { nativeFlorence2Checkpoint, nativeFlorence2Config } from "./florence2-layout.ts";
import { florence2OlderLayout } from "./florence2-older-modules.ts";
import { Florence2MultiModalProjector } from "./florence2-projector.ts";
import { Florence2VisionBackbone } from "./florence2-vision.ts";
import { type ImageSize, ImageTextToTextLM } from "./image-text-lm.ts";
import type { ModelBuilder } from "./registry.ts";
import type { DecoderCacheLayout, DecoderInputs, DecoderKeyValues, EncoderInputs } from "./seq2seq-lm.ts";

/** Vision tower, projector and BART without a head. Source: transformers Florence2Model. */
export class Florence2Model extends Module {
  override readonly className = "Florence2Model";
  readonly vision_tower: Florence2VisionBackbone;
  readonly multi_modal_projector: Layer;
  readonly language_model: BartModel;

  constructor({ vision, text }: Florence2Settings) {
    super();
    this.vision_tower = new Florence2VisionBackbone(vision);
    this.multi_modal_projector = new Florence2MultiModalProjector(vision);
    this.language_model = new BartModel(text);
  }
}

/**
 * Florence-2: pictures and a prompt in, text with places in the picture out.
 * Source: Xiao et al. 2023; transformers Florence2ForConditionalGeneration.
 */
export class Florence2ForConditionalGeneration extends ImageTextToTextLM {
  override readonly className = "Florence2ForConditionalGeneration";
  override readonly modelType = "florence2";
  readonly model: Florence2Model;
  readonly lm_head: Layer;
  override readonly inputEmbeddingPath = "model.language_model.shared";
  override readonly outputEmbeddingPath = "lm_head";
  private readonly settings: Florence2Settings;

  constructor(settings: Florence2Settings) {
    super();
    const { hiddenSize, vocabSize } = settings.text;
    this.settings = settings;
    this.model = new Florence2Model(settings);
    const { weight } = this.model.language_model.shared as Embedding;
    this.lm_head = new Linear(hiddenSize, vocabSize, settings.tiedHead ? { weight } : {});
  }

  override get olderLayout(): OlderLayout {
    return florence2OlderLayout;
  }
  override get vocabSize(): number {
    return this.settings.text.vocabSize;
  }
  override get maxPositions(): number {
    return this.settings.text.maxPositions;
  }
  override get tiedEmbeddings(): boolean {
    return this.settings.tiedHead;
  }
  override get padTokenId(): number {
    return this.settings.text.padTokenId;
  }
  override get eosTokenIds(): number[] {
    return [...this.settings.eosTokenIds];
  }
  override get decoderStartTokenId(): number {
    return this.settings.text.decoderStartTokenId;
  }
  override get imageTokenId(): number {
    return this.settings.imageTokenId;
  }
  override get imageChannels(): number {
    return this.settings.vision.inChannels;
  }
  override get decoderCacheLayout(): DecoderCacheLayout {
    const { hiddenSize, decoder } = this.settings.text;
    return { layers: decoder.layers, heads: decoder.heads, headDim: hiddenSize / decoder.heads };
  }

  override imageFeatures(pixels: Value): Value {
    this.imageTokens({ height: pixels.shape[2] as number, width: pixels.shape[3] as number });
    return this.model.multi_modal_projector.forward(this.model.vision_tower.forward(pixels));
  }

  override imageTokens(size: ImageSize): number {
    const { height, width } = this.model.vision_tower.featureSizes(size).at(-1)!;
    if (height < 1 || width < 1)
      throw new UnsupportedModelError(
        `The picture is too small: of ${size.height} × ${size.width} pixels nothing is left behind the vision tower. Resize the picture.`,
        { code: "image-too-small", details: { ...size } },
      );
    return 1 + height * width;
  }

  override imageNoiseRows(size: ImageSize): readonly number[] {
    return [...new Set([...this.model.vision_tower.noiseRows(size), this.imageTokens(size)])];
  }

  protected override embedTokens(inputIds: Value): Value {
    return this.model.language_model.shared.forward(inputIds);
  }

  override encode({ attentionMask, ...inputs }: EncoderInputs): Value {
    const inputsEmbeds = "inputsEmbeds" in inputs ? inputs.inputsEmbeds : this.embedTokens(inputs.inputIds);
    return this.model.language_model.encoder.forward({ inputsEmbeds, attentionMask });
  }

  override decode(inputs: DecoderInputs): { hidden: Value; present: DecoderKeyValues[] } {
    return this.model.language_model.decoder.forward(inputs);
  }

  override logits(hidden: Value): Value {
    return this.lm_head.forward(hidden);
  }
}

/** Reads either layout; the model, its configuration and its tensors are transformers' in both cases. */
export const florence2: ModelBuilder<ImageTextToTextLM> = (raw, file) => {
  const config = nativeFlorence2Config(raw, file);
  const { settings, warnings } = readFlorence2Config(config, file);
  const model = new Florence2ForConditionalGeneration(settings);
  return { model, warnings, config, convert: nativeFlorence2Checkpoint };
};
