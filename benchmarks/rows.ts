import { closeSync, openSync, readSync } from "node:fs";
import { type Tensor, tensor } from "../src/tensor/index.ts";
import type { Rows } from "./make-rows.ts";

/** The picture of a row, [channels, height, width]. */
export function readPicture({ file, shape }: NonNullable<Rows["pixels"]>, row: number): Tensor<"float32"> {
  const [channels, height, width] = shape;
  const pixels = new Float32Array(channels * height * width);
  const handle = openSync(file, "r");
  readSync(handle, pixels, 0, pixels.byteLength, row * pixels.byteLength);
  closeSync(handle);
  return tensor("float32", [...shape], pixels);
}
