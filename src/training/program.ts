import { type Dim, dimMultiply, gradients, input, op, symbol, type Value } from "../graph/index.ts";
import { type CausalLM, causalInputs } from "../models/index.ts";
import { Dropout, type Parameter } from "../nn/index.ts";

/** Output name of a parameter's gradient. */
export const gradientName = (parameter: Parameter): string => `gradient ${parameter.name}`;

/**
 * Loss of a batch: scale · Σ over labelled positions of -ln p(target).
 * Only labelled positions reach the vocabulary product: their hidden rows are gathered first, so tokens without a label
 * cost no logits.
 * Inputs besides the model's: `label_positions` [labels] (rows of the flattened batch), `label_targets` [labels],
 * `loss_scale` [] (1 / number of labels of the whole step, so that gradients of accumulated batches add up to the mean's).
 */
export function lossProgram(
  model: CausalLM,
  { dropout = false }: { dropout?: boolean } = {},
): { loss: Value } {
  const inputs = causalInputs();
  const [batch, sequence] = inputs.inputIds.shape as [Dim, Dim];
  const labels = symbol("labels");
  const positions = input("label_positions", "int64", [labels]);
  const targets = input("label_targets", "int64", [labels]);
  const noise = op.reshape(input("dropout_noise", "int32", [batch, sequence]), [
    dimMultiply(batch, sequence),
  ]);

  const { hidden } = withNoise(model, dropout ? noise : undefined, () => model.hiddenStates(inputs));
  const rows = op.gather(op.reshape(hidden, [dimMultiply(batch, sequence), hidden.shape[2]!]), positions);
  const logits = withNoise(model, dropout ? op.gather(noise, positions) : undefined, () =>
    model.logits(rows),
  );
  return { loss: op.mul(crossEntropy(logits, targets), input("loss_scale", "float32", [])) };
}

/**
 * Sum over rows of ln Σ exp(x) - x_target.
 * Shapes: logits [labels, vocabulary], targets [labels], result [].
 */
function crossEntropy(logits: Value, targets: Value): Value {
  const picked = op.gatherElements(logits, op.unsqueeze(targets, 1), 1);
  return op.reduceSum(op.sub(op.reduceLogSumExp(logits), picked), { axes: [0, 1], keepdims: false });
}

/** Runs `build` while the model's dropouts draw from `noise`, one random number per row. */
function withNoise<T>(model: CausalLM, noise: Value | undefined, build: () => T): T {
  const dropouts = [...model.namedModules()].flatMap(([, module]) =>
    module instanceof Dropout ? [module] : [],
  );
  for (const dropout of dropouts) dropout.noise = noise;
  try {
    return build();
  } finally {
    for (const dropout of dropouts) dropout.noise = undefined;
  }
}

/** The loss and its gradient for every trained parameter. */
export function trainingProgram(model: CausalLM): { outputs: Record<string, Value>; trained: Parameter[] } {
  const trained = [...model.namedParameters()].flatMap(([, parameter]) =>
    parameter.trainable ? [parameter] : [],
  );
  const { loss } = lossProgram(model, { dropout: true });
  const cotangents = gradients(
    loss,
    trained.map((parameter) => parameter.value),
  );
  return {
    outputs: {
      loss,
      ...Object.fromEntries(trained.map((parameter, i) => [gradientName(parameter), cotangents[i]!])),
    },
    trained,
  };
}
