import { type Batch, type LabelLayout, picturesShape } from "../data/index.ts";
import { DataError, UnsupportedModelError } from "../errors.ts";
import {
  CausalLM,
  causalFeeds,
  causalLabelledLoss,
  causalNoise,
  type DropoutOptions,
  type ImageSize,
  ImageTextToTextLM,
  imageRows,
  imageTextFeeds,
  imageTextLabelledLoss,
  imageTextNoise,
  type LabelledLoss,
  type LanguageModel,
  type PicturedBatch,
  Seq2SeqLM,
  seq2seqFeeds,
  seq2seqLabelledLoss,
  seq2seqNoise,
} from "../models/index.ts";
import type { Tensor } from "../tensor/index.ts";

type LossOptions = DropoutOptions & {
  readonly image: ImageSize | undefined;
  readonly packed?: boolean;
  readonly attentionBlocks?: number;
};

/** What a kind of model learns, and how a batch is put to it. */
export type Objective = {
  readonly labels: LabelLayout;
  /** Size of a batch's pictures, undefined without any; it is part of the graph. @throws DataError for pictures that the model does not read. */
  readonly imageSize: (batch: Batch) => ImageSize | undefined;
  /** Whether most batches have pictures, so that their graph is not known before they are. */
  readonly readsPictures: boolean;
  /** Whether rows may hold several examples. */
  readonly packs: boolean;
  /** loss_scale · Σ over labelled places of -ln p(label), for batches with pictures of this size, or without, packed or not. */
  readonly loss: (options: LossOptions) => LabelledLoss;
  /** What the loss reads. `lossScale` is 1 / labels of the whole step, so that gradients of accumulated batches add up to the mean's. */
  readonly feeds: (batch: Batch, options: { lossScale: number }) => Record<string, Tensor>;
  /** Random bits for dropout, which follow from the seed alone. */
  readonly noise: (batch: Batch, seed: number) => Record<string, Tensor>;
};

/** @throws UnsupportedModelError for a model of a kind that is not trained here. */
export function objectiveOf(model: LanguageModel): Objective {
  if (model instanceof CausalLM) return causal(model);
  if (model instanceof ImageTextToTextLM) return imageText(model);
  if (model instanceof Seq2SeqLM) return seq2seq(model);
  throw new UnsupportedModelError(
    `${model.origin.name}: a ${model.className} is neither a causal language model nor an encoder–decoder, which can be trained.`,
    { code: "untrainable-model", details: { className: model.className } },
  );
}

const causal = (model: CausalLM): Objective => ({
  labels: "aligned",
  imageSize: noPictures(model),
  readsPictures: false,
  packs: true,
  loss: (options) => causalLabelledLoss(model, options),
  feeds: (batch, options) => causalFeeds(model, batch, options),
  noise: causalNoise,
});

const seq2seq = (model: Seq2SeqLM): Objective => ({
  labels: "decoder",
  imageSize: noPictures(model),
  readsPictures: false,
  packs: false,
  loss: (options) => seq2seqLabelledLoss(model, options),
  feeds: (batch, options) => seq2seqFeeds(model, batch, options),
  noise: seq2seqNoise,
});

/** Each size of picture has a graph of its own, and so have prompts without. */
const imageText = (model: ImageTextToTextLM): Objective => {
  const text = seq2seq(model);
  return {
    labels: "decoder",
    imageSize(batch) {
      const [, , height, width] = picturesShape(batch) ?? [];
      return height === undefined || width === undefined ? undefined : { height, width };
    },
    readsPictures: true,
    packs: false,
    loss: ({ image, ...options }) =>
      image ? imageTextLabelledLoss(model, { image, ...options }) : text.loss({ image, ...options }),
    feeds(batch, options) {
      const pictured = withPictures(batch);
      if (pictured) return imageTextFeeds(model, pictured, options);
      imageRows(batch.inputIds, { imageTokenId: model.imageTokenId, features: 0 }); // placeholders without a picture
      return text.feeds(batch, options);
    },
    noise(batch, seed) {
      const pictured = withPictures(batch);
      return pictured ? imageTextNoise(model, pictured, seed) : text.noise(batch, seed);
    },
  };
};

function withPictures(batch: Batch): PicturedBatch | undefined {
  const pixelValues = batch.pixelValues ?? batch.unreadPictures;
  return pixelValues && { ...batch, pixelValues };
}

const noPictures =
  ({ modelType }: LanguageModel) =>
  ({ pixelValues }: Batch): undefined => {
    if (pixelValues)
      throw new DataError(
        `The data has pictures, which a ${modelType} does not read. Leave them out, or take a model that does.`,
        { code: "unexpected-picture", details: { modelType } },
      );
  };
