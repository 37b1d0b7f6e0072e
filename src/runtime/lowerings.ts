import type { Lowering } from "../graph/index.ts";
import type { Device } from "./types.ts";

/**
 * What each execution provider needs rewritten. ONNX Runtime's CPU kernels cover every operator that Graft emits.
 * TODO-WEBGPU
 */
export const lowerings: { readonly [D in Device]: Lowering } = {
  cpu: {},
  cuda: {},
  coreml: {},
  dml: {},
  webgpu: {},
};
