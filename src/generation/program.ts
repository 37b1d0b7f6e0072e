import { type Dim, dimValue, op, type Value } from "../graph/index.ts";
import { type CausalLM, causalInputs } from "../models/index.ts";

/** Names of the cache's ports: what one run leaves is fed to the next. */
export const pastName = (layer: number, part: "key" | "value"): string => `past.${layer}.${part}`;
export const presentName = (layer: number, part: "key" | "value"): string => `present.${layer}.${part}`;

/**
 * Scores of the next token, [batch, vocabulary], and the keys and values of all tokens so far. The prompt is processed in
 * one run with an empty past; every further run reads one token.
 */
export function nextTokenProgram(model: CausalLM): Record<string, Value> {
  const inputs = causalInputs(model.cacheLayout);
  const { hidden, present } = model.hiddenStates(inputs);
  const [batch, sequence, width] = hidden.shape as [Dim, Dim, Dim];
  const last = op.gather(hidden, op.sub(dimValue(sequence), 1), 1); // [batch, hidden]
  const outputs: Record<string, Value> = { logits: model.logits(op.reshape(last, [batch, width])) };
  for (const [layer, { key, value }] of present.entries()) {
    outputs[presentName(layer, "key")] = key;
    outputs[presentName(layer, "value")] = value;
  }
  return outputs;
}
