import { gradients, shareInputs, sinkGathers, type Value } from "../graph/index.ts";
import type { ImageSize, LanguageModel } from "../models/index.ts";
import type { Parameter } from "../nn/index.ts";
import { type Objective, objectiveOf } from "./objective.ts";

/** Output name of a parameter's gradient. */
export const gradientName = (parameter: Parameter): string => `gradient ${parameter.name}`;

/** What training updates, in the order of the module tree. */
export const trainedParameters = (model: LanguageModel): Parameter[] =>
  [...model.namedParameters()].flatMap(([, parameter]) => (parameter.trainable ? [parameter] : []));

/**
 * The loss of batches with pictures of a size, or without, packed or not, and its gradient for every trained parameter. Adapters drop what
 * they are told to; the model itself computes as in evaluation, unless there is `modelDropout`.
 */
export function trainingProgram(
  model: LanguageModel,
  {
    image,
    packed = false,
    modelDropout = false,
    objective = objectiveOf(model),
  }: {
    image?: ImageSize | undefined;
    packed?: boolean;
    modelDropout?: boolean;
    objective?: Objective;
  } = {},
): { outputs: Record<string, Value>; trained: Parameter[] } {
  const trained = trainedParameters(model);
  const behind = trained.map((parameter) => parameter.value);
  const whole = { loss: objective.loss({ image, packed, dropout: true, modelDropout }) };
  const { loss } = shareInputs(sinkGathers(whole, { behind }), behind) as { loss: Value };
  const cotangents = gradients(loss, behind);
  return {
    outputs: {
      loss,
      ...Object.fromEntries(trained.map((parameter, i) => [gradientName(parameter), cotangents[i]!])),
    },
    trained,
  };
}

/** The loss alone, without dropout. */
export function evaluationProgram(
  model: LanguageModel,
  {
    image,
    packed = false,
    objective = objectiveOf(model),
  }: { image?: ImageSize | undefined; packed?: boolean; objective?: Objective } = {},
): Record<string, Value> {
  const behind = trainedParameters(model).map((parameter) => parameter.value);
  const loss = objective.loss({ image, packed, dropout: false });
  return sinkGathers({ loss }, behind.length > 0 ? { behind } : {});
}
