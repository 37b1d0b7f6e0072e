import { readTensorAsFloat32, type TensorEntry } from "../checkpoint/index.ts";
import { AdapterError, closest, listedProblems, listProblems } from "../errors.ts";
import { formatShape } from "../graph/index.ts";
import { type ModuleBuffer, Parameter } from "../nn/index.ts";
import type { DType } from "../tensor/index.ts";
import { parametersByKey, readKey, savedBuffers } from "./inject.ts";
import type { PeftModel } from "./peft-model.ts";

const storedDtypes: ReadonlySet<DType> = new Set(["float32", "float16", "bfloat16"]);

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
  const takers = new Map<string, Parameter | ModuleBuffer>([...parameters, ...savedBuffers(peft.baseModel)]);
  const absent = peft.selection.stateDict.flatMap(([key]) => (tensors.has(key) ? [] : [key]));
  const read = new Map([...tensors].filter(([key]) => readKey(key) === key || !parameters.has(readKey(key))));
  const unknown = [...read.keys()].filter((key) => !takers.has(key));
  const problems: string[] = [];
  // Looking for the closest key takes a while among many: only for what the message lists.
  const hint = (key: string, candidates: readonly string[]): string =>
    problems.length < listedProblems ? closest(key, candidates) : "";
  for (const key of absent)
    if (parameters.get(key)?.trainable) problems.push(`"${key}" is missing${hint(key, unknown)}`);
  for (const [key, entry] of read) {
    const taker = takers.get(key);
    if (!taker) problems.push(`"${key}" is not part of the adapted model${hint(key, absent)}`);
    else if (!(storedDtypes.has(entry.dtype) || (isFed(taker) && entry.dtype === "float64")))
      problems.push(`"${key}" is stored as ${entry.dtype}; ${[...storedDtypes].join(", ")} are supported`);
    else if (formatShape(entry.shape) !== formatShape(taker.shape))
      problems.push(`"${key}" has shape ${formatShape(entry.shape)}, expected ${formatShape(taker.shape)}`);
  }
  if (problems.length > 0)
    throw new AdapterError(
      `${file} does not fit ${peft.baseModel.nameOrPath} (${peft.baseModel.modelType}): ${listProblems(problems)}. Was the adapter trained on another model, or with another adapter_config.json?`,
      { code: "adapter-does-not-fit", details: { file, problems } },
    );
  // Everything is read before anything is changed. The last of several names of a shared parameter counts.
  const assignments: (() => void)[] = [];
  for (const [key, taker] of takers) {
    const entry = read.get(key);
    if (entry) assignments.push(await assignment(taker, entry));
  }
  for (const assign of assignments) assign();
}

const isFed = (taker: Parameter | ModuleBuffer): taker is Parameter =>
  taker instanceof Parameter && taker.fed;

async function assignment(taker: Parameter | ModuleBuffer, entry: TensorEntry): Promise<() => void> {
  if (isFed(taker)) {
    const data = await readTensorAsFloat32(entry);
    return () => {
      taker.data = data;
    };
  }
  return () => {
    taker.storage = entry;
  };
}
