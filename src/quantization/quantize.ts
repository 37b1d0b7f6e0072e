import { Linear, type Parameter, type PreTrainedModel } from "../nn/index.ts";
import { ahead } from "./ahead.ts";
import { type EncodedWeight, encodeWeight } from "./encode.ts";
import { int4Codes } from "./int4.ts";
import { int8Codes } from "./int8.ts";
import type { RowCodes } from "./row-codes.ts";
import { type CodeStore, inMemory } from "./stored-codes.ts";

/** What frozen weights of linear layers are kept as. */
export const baseDtypes = ["float32", "int8", "int4"] as const;
export type BaseDtype = (typeof baseDtypes)[number];
export type QuantizedDtype = Exclude<BaseDtype, "float32">;

const formats: { readonly [D in QuantizedDtype]: RowCodes } = { int8: int8Codes, int4: int4Codes };

export type QuantizeOptions = {
  readonly dtype: QuantizedDtype;
  /** Whether the layer that scores the vocabulary is quantised too. */
  readonly head?: boolean;
  /** Layers whose weight errs more than this, as ‖W - Ŵ‖ / ‖W‖, keep it. */
  readonly maxError?: number;
  /**
   * Directory for the codes, in Node; by default one for all models below the user's cache directory. `null` keeps codes in
   * memory, as a browser does.
   */
  readonly cacheDirectory?: string | null;
  /** What all codes of the directory may take, in bytes; by default `$GRAFT_QUANTIZED_CACHE_BYTES`, or 10 GB. */
  readonly maxCacheBytes?: number;
};

/** A layer that was to be quantised. */
export type QuantizedLayer = {
  /** Path in the module tree. */
  readonly path: string;
  readonly linear: Linear;
  /** ‖W - Ŵ‖ / ‖W‖. */
  readonly weightError: number;
};

export type QuantizationReport = {
  readonly dtype: QuantizedDtype;
  readonly quantized: readonly QuantizedLayer[];
  /** Layers that keep their weight, as its codes would be too far from it. */
  readonly kept: readonly QuantizedLayer[];
  /** Bytes of the codes and scales. */
  readonly bytes: number;
};

/**
 * Puts codes of few bits in the place of the frozen weights of a model's linear layers: those below adapters, and all others
 * that nothing trains. Embeddings, norms, biases, convolutions and adapters stay as they are; of a weight that an embedding
 * shares with the head, only the head's product is quantised. Call it when it is known what is trained.
 * @throws GraphError if nothing has been loaded, CheckpointError if weights cannot be read or codes not be written.
 */
export async function quantizeWeights(
  model: PreTrainedModel,
  { dtype, head = true, maxError = maxErrors[dtype], cacheDirectory, maxCacheBytes }: QuantizeOptions,
): Promise<QuantizationReport> {
  const format = formats[dtype];
  const layers = linearLayers(model, head).filter(([, { inFeatures }]) => format.fits(inFeatures));
  const weights = new Map(layers.map(([path, { weight }]) => [path, weight]));
  const store = await codeStore(weights, dtype, { directory: cacheDirectory, maxBytes: maxCacheBytes });
  const stored = await store(encodeAll(weights, format));
  const rounded = { forward: format.codeDtype === "int8", backward: format.codeDtype === "int8" };
  const quantized: QuantizedLayer[] = [];
  const kept: QuantizedLayer[] = [];
  let bytes = 0;
  for (const [path, linear] of layers) {
    const { codes, scales, error } = stored.get(path)!;
    const isClose = error <= maxError;
    linear.quantized = isClose ? { codes, scales, rounded } : undefined;
    (isClose ? quantized : kept).push({ path, linear, weightError: error });
    if (isClose) bytes += codes.byteLength + scales.byteLength;
  }
  return { dtype, quantized, kept, bytes };
}

/** What rounding may cost at most. Weights with bell-shaped rows err by about 0.01 in 8 bits, and by 0.1 in 4. */
const maxErrors: { readonly [D in QuantizedDtype]: number } = { int8: 0.03, int4: 0.2 };

/** The layers whose weights come from the checkpoint and are not trained. */
function linearLayers(model: PreTrainedModel, head: boolean): [path: string, linear: Linear][] {
  const found: [string, Linear][] = [];
  for (const [path, module] of model.namedModules())
    if (module instanceof Linear && isFrozen(module.weight) && (head || path !== model.outputEmbeddingPath))
      found.push([path, module]);
  return found;
}

/** An adapter's own weights, even where nothing trains them, do not lie in the checkpoint. */
const isFrozen = ({ trainable, storage }: Parameter): boolean => !trainable && storage !== undefined;

const encodeAll = (
  weights: ReadonlyMap<string, Parameter>,
  format: RowCodes,
): AsyncGenerator<readonly [name: string, weight: EncodedWeight]> =>
  ahead(
    [...weights].map(
      ([name, weight]) =>
        async () =>
          [name, await encodeWeight(weight, format)] as const,
    ),
  );

async function codeStore(
  weights: ReadonlyMap<string, Parameter>,
  format: string,
  { directory, maxBytes }: { directory: string | null | undefined; maxBytes: number | undefined },
): Promise<CodeStore> {
  const { process } = globalThis as { process?: { versions?: { node?: string } } };
  if (directory === null || process?.versions?.node === undefined) return inMemory;
  const { cachedCodes } = await import("./node.ts");
  return cachedCodes(weights, format, { directory, maxBytes });
}
