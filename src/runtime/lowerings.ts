import { dimProduct, type Lowering, op } from "../graph/index.ts";
import { dequantizedProducts, integerProducts, packedProducts } from "./quantized-lowerings.ts";
import type { Device } from "./types.ts";
import { webgpuLowering } from "./webgpu-lowerings.ts";

/**
 * Adds rows one after the other. ONNX Runtime's CPU kernel of ScatterND adds rows on several threads without a lock, so
 * that of two updates to one row one may be lost (onnxruntime issues 18048, 23396); ScatterElements runs on one thread.
 */
const scatterSerially: NonNullable<Lowering["ScatterND"]> = ([data, indices, updates]) => {
  const rows = dimProduct(indices.shape);
  const rest = data.shape.slice(1);
  const perRow = op.reshape(indices, [rows, ...rest.map(() => 1)]);
  return op.scatterElementsAdd(
    data,
    op.expand(perRow, [rows, ...rest]),
    op.reshape(updates, [rows, ...rest]),
    0,
  );
};

/**
 * What each execution provider needs rewritten. Kernels of the CPU cover every operator that Graft emits, and serve
 * where another provider has none. Nothing is known yet of what CUDA, CoreML and DirectML need beyond that: CoreML
 * leaves the operators it lacks to the CPU, and with them the CPU's rewrites.
 */
export const lowerings: { readonly [D in Device]: Lowering } = {
  cpu: { ScatterND: scatterSerially, QuantizedMatMul: integerProducts() },
  cuda: { QuantizedMatMul: dequantizedProducts },
  coreml: { ScatterND: scatterSerially, QuantizedMatMul: dequantizedProducts },
  dml: { QuantizedMatMul: dequantizedProducts },
  webgpu: { ...webgpuLowering, QuantizedMatMul: dequantizedProducts },
};

/** The same for programs whose weights are laid out anew when they are loaded. */
export const prepackedLowerings: { readonly [D in Device]: Lowering } = {
  ...lowerings,
  cpu: { ...lowerings.cpu, QuantizedMatMul: packedProducts() },
};
