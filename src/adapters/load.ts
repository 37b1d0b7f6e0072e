import { readTensorAsFloat32, type TensorEntry } from "../checkpoint/index.ts";
import { AdapterError, nearest } from "../errors.ts";
import { formatShape } from "../graph/index.ts";
import type { Parameter } from "../nn/index.ts";
import type { DType } from "../tensor/index.ts";
import { parametersByKey } from "./inject.ts";
import type { PeftModel } from "./peft-model.ts";

const storedDtypes: ReadonlySet<DType> = new Set(["float32", "float16", "bfloat16"]);

/** How many problems a message lists before it only counts. */
const LISTED = 8;

/**
 * Fills an injected adapter from saved tensors. Base weights that were saved along (resized or adapted embeddings) replace
 * the model's own, as in PEFT.
 * @throws AdapterError listing all tensors that are missing, unknown, or of another shape or type. Nothing is loaded then.
 */
export async function loadAdapterTensors(
  peft: PeftModel,
  tensors: ReadonlyMap<string, TensorEntry>,
  file: string,
): Promise<void> {
  const parameters = parametersByKey(peft.baseModel);
  const expected = new Set(peft.selection.stateDict.map(([key]) => key));
  const unknown = [...tensors.keys()].filter((key) => !parameters.has(key));
  const problems = [...expected]
    .filter((key) => !tensors.has(key) && parameters.get(key)?.trainable)
    .map((key) => `"${key}" is missing${suggestion(key, unknown)}`);
  const absent = [...expected].filter((key) => !tensors.has(key));
  for (const [key, entry] of tensors) {
    const parameter = parameters.get(key);
    if (!parameter) problems.push(`"${key}" is not part of the adapted model${suggestion(key, absent)}`);
    else if (!(storedDtypes.has(entry.dtype) || (parameter.fed && entry.dtype === "float64")))
      problems.push(`"${key}" is stored as ${entry.dtype}; ${[...storedDtypes].join(", ")} are supported`);
    else if (formatShape(entry.shape) !== formatShape(parameter.shape))
      problems.push(
        `"${key}" has shape ${formatShape(entry.shape)}, expected ${formatShape(parameter.shape)}`,
      );
  }
  if (problems.length > 0)
    throw new AdapterError(
      `${file} does not fit ${peft.baseModel.nameOrPath} (${peft.baseModel.modelType}): ${list(problems)}. Was the adapter trained on another model, or with another adapter_config.json?`,
      { code: "adapter-does-not-fit", details: { file, problems } },
    );
  // Everything is read before anything is changed.
  const assignments: (() => void)[] = [];
  for (const [key, entry] of tensors) assignments.push(await assignment(parameters.get(key)!, entry));
  for (const assign of assignments) assign();
}

async function assignment(parameter: Parameter, entry: TensorEntry): Promise<() => void> {
  const data = parameter.fed ? await readTensorAsFloat32(entry) : undefined;
  return () => {
    if (data) parameter.data = data;
    else parameter.storage = entry;
  };
}

const suggestion = (key: string, candidates: Iterable<string>): string => {
  const close = nearest(key, candidates, 1)[0];
  return close ? ` (closest: "${close}")` : "";
};

const list = (items: readonly string[]): string =>
  items.length <= LISTED
    ? items.join("; ")
    : `${items.slice(0, LISTED).join("; ")}; and ${items.length - LISTED} more`;
