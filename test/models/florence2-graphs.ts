import type { Value } from "../../src/graph/index.ts";
import {
  type Florence2ForConditionalGeneration,
  type ImageTextBatch,
  type ImageTextToTextLM,
  imageInputs,
  imageTextFeeds,
  seq2seqInputs,
} from "../../src/models/index.ts";
import type { Tensor } from "../../src/tensor/index.ts";
import { imageSizeOf } from "./florence2-case.ts";

/** The values that are compared with the reference, and what to feed for them. */
export async function florence2Forward(
  model: ImageTextToTextLM,
  batch: ImageTextBatch,
): Promise<{ outputs: Record<string, Value>; feeds: Record<string, Tensor> }> {
  const inputs = seq2seqInputs();
  const { pixelValues, imageRows: rows } = imageInputs(model, imageSizeOf(batch));
  const features = model.imageFeatures(pixelValues);
  const inputsEmbeds = model.embed(inputs.inputIds, { features, rows });
  const encoder = model.encode({ inputsEmbeds, attentionMask: inputs.attentionMask });
  return {
    outputs: {
      vision: (model as Florence2ForConditionalGeneration).model.vision_tower.forward(pixelValues),
      image_features: features,
      encoder,
      logits: model.logits(model.decode({ ...inputs, encoderHidden: encoder }).hidden),
    },
    feeds: { ...(await model.parameterFeeds()), ...imageTextFeeds(model, batch) },
  };
}
