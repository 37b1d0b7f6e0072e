import { type RawConfig, setting, sizeOf, type TensorInfo } from "./types.ts";

/** Own tensors of one module, by their last name: mostly one, which therefore needs no list. */
export class OwnTensors {
  private firstName = "";
  private first: TensorInfo | undefined;
  private rest: { readonly name: string; readonly tensor: TensorInfo }[] | undefined;

  get size(): number {
    return this.first === undefined ? 0 : 1 + (this.rest?.length ?? 0);
  }

  /** A name that is given again stands for its first tensor. */
  add(name: string, tensor: TensorInfo): void {
    if (this.first === undefined) {
      this.firstName = name;
      this.first = tensor;
    } else if (!this.has(name)) {
      this.rest ??= [];
      this.rest.push({ name, tensor });
    }
  }

  name(index: number): string {
    return index === 0 ? this.firstName : this.rest![index - 1]!.name;
  }

  tensor(index: number): TensorInfo {
    return index === 0 ? this.first! : this.rest![index - 1]!.tensor;
  }

  get(name: string): TensorInfo | undefined {
    if (this.firstName === name) return this.first;
    return this.rest?.find((other) => other.name === name)?.tensor;
  }

  has(name: string): boolean {
    return this.get(name) !== undefined;
  }
}

/** A linear layer whose weight is stored packed. `shape`: [out, in] as the loaded layer has it; undefined if unknown. */
export type QuantizedLinear = {
  readonly method: string;
  readonly shape: readonly [out: number, in_: number] | undefined;
  readonly parameters: readonly (readonly [name: string, shape: readonly number[]])[];
};

/** Names that only quantised modules have beside their weight. */
export const quantizationNames: ReadonlySet<string> = new Set(
  (
    "qweight qzeros scales g_idx SCB weight_format weight_scale weight_scale_inv weight_packed weight_shape " +
    "weight_zero_point weight_g_idx input_scale output_scale weight_scale_2 weight_global_scale input_global_scale"
  ).split(" "),
);

/** Names of the statistics that bitsandbytes stores below `weight`, as if it were a module. */
export const isQuantizationState = (name: string): boolean =>
  /\.weight\.(?:absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.bitsandbytes__\w+)$/.test(name);

/** Recognises GPTQ, AWQ, bitsandbytes, compressed-tensors and FP8 layers by their tensors. */
export function quantizedLinear(
  name: string,
  own: OwnTensors,
  hasState: boolean,
  config: RawConfig,
): QuantizedLinear | undefined {
  const bias = own.get("bias");
  const extra: [string, readonly number[]][] = bias === undefined ? [] : [["bias", bias.shape]];
  const made = (method: string, out: number, inputs: number): QuantizedLinear => ({
    method,
    shape: [out, inputs],
    parameters: [["weight", [out, inputs]], ...extra],
  });
  const [qweight, scales] = [own.get("qweight"), own.get("scales")];
  if (qweight !== undefined && qweight.shape.length === 2) {
    const [rows, columns] = qweight.shape as [number, number];
    const out = scales?.shape.at(-1) ?? bias?.shape[0];
    if (out === undefined) return { method: "packed", shape: undefined, parameters: extra };
    // AWQ packs the outputs of a row, GPTQ the inputs of a column.
    if (out !== columns) return made("awq", out, rows);
    const inputs = own.get("g_idx")?.shape[0] ?? Math.floor((rows * 32) / bitsOf(config));
    return made("gptq", out, inputs);
  }
  const weight = own.get("weight");
  const packed = own.get("weight_packed");
  if (packed !== undefined && packed.shape.length === 2) {
    const [out, columns] = packed.shape as [number, number];
    return made("compressed-tensors", out, (columns * (packed.dtype === "uint8" ? 8 : 32)) / bitsOf(config));
  }
  if (weight === undefined || weight.shape.length !== 2) return undefined;
  const [out, inputs] = weight.shape as [number, number];
  if (hasState || (weight.dtype === "uint8" && inputs === 1)) {
    const shape = shapeOfPacked(name, 2 * sizeOf(weight.shape), bias?.shape[0], config);
    return shape === undefined
      ? { method: "bitsandbytes 4-bit", shape, parameters: extra }
      : made("bitsandbytes 4-bit", ...shape);
  }
  if (own.has("SCB")) return made("bitsandbytes 8-bit", out, inputs);
  if (own.has("weight_scale_inv") || own.has("weight_scale"))
    return made(weight.dtype.startsWith("float8") ? "fp8" : weight.dtype, out, inputs);
  return undefined;
}

function bitsOf(config: RawConfig): number {
  const quantization = config["quantization_config"] as RawConfig | undefined;
  const bits = quantization?.["bits"] ?? quantization?.["w_bit"];
  return typeof bits === "number" && bits > 0 ? bits : 4;
}

/** Layers that lead back to the hidden size. */
const outward = /^(?:\w+_)?(?:o_proj|out_proj|down_proj|dense_4h_to_h|c_proj|fc2|wo|w2)$|^(?:o|dense|proj)$/;

/** The shape of a flat weight, from the bias or else from the hidden size and what the layer is called. */
function shapeOfPacked(
  name: string,
  size: number,
  biasLength: number | undefined,
  config: RawConfig,
): readonly [number, number] | undefined {
  const divide = (known: number | undefined): number | undefined =>
    known !== undefined && known > 0 && size % known === 0 ? size / known : undefined;
  if (biasLength !== undefined) {
    const inputs = divide(biasLength);
    return inputs === undefined ? undefined : [biasLength, inputs];
  }
  const hidden = setting(config, "hidden_size", "d_model", "n_embd", "dim");
  const other = divide(hidden);
  if (hidden === undefined || other === undefined) return undefined;
  return outward.test(name.slice(name.lastIndexOf(".") + 1)) ? [hidden, other] : [other, hidden];
}
