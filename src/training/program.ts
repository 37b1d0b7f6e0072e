import { op, pullBack, shareInputs, sinkGathers, type Value } from "../graph/index.ts";
import type { ImageSize, LanguageModel } from "../models/index.ts";
import { type Parameter, withRecomputedBlocks } from "../nn/index.ts";
import { chunkedGradients } from "./chunked-gradients.ts";
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
    attentionBlocks = 1,
    modelDropout = false,
    objective = objectiveOf(model),
    isRecomputed = () => false,
  }: {
    image?: ImageSize | undefined;
    packed?: boolean;
    attentionBlocks?: number;
    modelDropout?: boolean;
    objective?: Objective;
    /** Blocks of which the backward pass keeps only what enters them; see `withRecomputedBlocks`. */
    isRecomputed?: (block: number) => boolean;
  } = {},
): { outputs: Record<string, Value>; trained: Parameter[] } {
  const trained = trainedParameters(model);
  const behind = trained.map((parameter) => parameter.value);
  const whole = withRecomputedBlocks(isRecomputed, () =>
    objective.loss({ image, packed, attentionBlocks, dropout: true, modelDropout }),
  );
  const { rows } = shareInputs(sinkGathers({ rows: whole.rows }, { behind }), behind) as { rows: Value };
  const { loss, ...top } = chunkedGradients(whole, rows, behind);
  const given = behind.flatMap((value, i) =>
    top.parameters[i] ? [[value, top.parameters[i]] as const] : [],
  );
  const slopes = pullBack(new Map([...(top.rows ? [[rows, top.rows] as const] : []), ...given]), behind);
  const zeros = ({ shape, dtype }: Value): Value => op.full(0, shape, dtype);
  const gradients = trained.map((parameter, i) => [gradientName(parameter), slopes[i] ?? zeros(behind[i]!)]);
  return { outputs: { loss, ...Object.fromEntries(gradients) }, trained };
}

/** The loss alone, without dropout. */
export function evaluationProgram(
  model: LanguageModel,
  {
    image,
    packed = false,
    attentionBlocks = 1,
    objective = objectiveOf(model),
  }: {
    image?: ImageSize | undefined;
    packed?: boolean;
    attentionBlocks?: number;
    objective?: Objective;
  } = {},
): Record<string, Value> {
  const behind = trainedParameters(model).map((parameter) => parameter.value);
  const loss = objective.loss({ image, packed, attentionBlocks, dropout: false }).total;
  return sinkGathers({ loss }, behind.length > 0 ? { behind } : {});
}
