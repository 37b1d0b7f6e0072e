import type { TensorEntry } from "../../../src/checkpoint/index.ts";
import type { PreTrainedModel } from "../../../src/nn/index.ts";
import { numel } from "../../../src/tensor/index.ts";

/** The model as if its weights lay in a file, for graphs that nobody runs. */
export function withoutWeights<M extends PreTrainedModel>(model: M): M {
  for (const [path, parameter] of model.namedParameters()) {
    parameter.name = path;
    parameter.storage = storageOf(path, parameter.shape);
  }
  return model;
}

const storageOf = (name: string, shape: readonly number[]): TensorEntry => ({
  ...{ name, dtype: "float32", shape, byteOffset: 0, byteLength: 4 * numel(shape) },
  source: { name, size: 0, read: () => Promise.reject(new Error("nothing is read")) },
});
