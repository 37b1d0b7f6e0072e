import { type Dim, dimDivide, dimEquals, dimMultiply, dimProduct, formatShape, shapeEquals } from "../dim.ts";
import type { Value } from "../value.ts";
import { fail, type Infer } from "./infer-checks.ts";

/** Sizes [out, in] of the weight that codes stand for. @throws GraphError if codes and scales do not fit each other. */
function weightShape(codes: Value, scales: Value): readonly [Dim, Dim] {
  if (codes.rank !== 2 || scales.dtype !== "float32")
    fail("QuantizedMatMul", `needs codes of two axes and float32 scales, got ${codes} and ${scales}.`);
  const [out, inner] = codes.shape as [Dim, Dim];
  if (codes.dtype === "int8") {
    if (!shapeEquals(scales.shape, [out]))
      fail(
        "QuantizedMatMul",
        `the scales ${formatShape(scales.shape)} are not one for each row of ${codes}.`,
      );
    return [out, inner];
  }
  if (codes.dtype !== "uint8") fail("QuantizedMatMul", `codes are int8 or uint8, got ${codes}.`);
  const size = dimMultiply(inner, 2);
  if (
    scales.rank !== 2 ||
    !dimEquals(scales.shape[0]!, out) ||
    dimDivide(size, scales.shape[1]!) === undefined
  )
    fail(
      "QuantizedMatMul",
      `the scales ${formatShape(scales.shape)} are not whole blocks of rows of ${codes}.`,
    );
  return [out, size];
}

export const inferQuantizedMatMul: Infer<"QuantizedMatMul"> = ([x, codes, scales], { transB }) => {
  const [out, size] = weightShape(codes, scales);
  const [inner, columns] = transB ? [size, out] : [out, size];
  if (x.rank !== 2 || x.dtype !== "float32" || !dimEquals(x.shape[1]!, inner))
    fail("QuantizedMatMul", `${x} does not fit a weight of ${formatShape([out, size])}.`);
  return { dtype: "float32", shape: [x.shape[0]!, columns] };
};

export const inferQuantizeLinear: Infer<"QuantizeLinear"> = ([x, scale, zeroPoint]) => {
  if (x.dtype !== "float32" || scale.dtype !== "float32" || scale.rank > 0 || zeroPoint.rank > 0)
    fail("QuantizeLinear", `needs float32 and scalars, got ${x}, ${scale} and ${zeroPoint}.`);
  return { dtype: zeroPoint.dtype, shape: x.shape };
};

export const inferDequantizeLinear: Infer<"DequantizeLinear"> = ([codes, scale], { axis, blockSize }) => {
  if (blockSize !== undefined) {
    const [out, half] = codes.shape as [Dim, Dim];
    const inner = dimMultiply(half, 2);
    if (codes.dtype !== "uint8" || axis !== 1 || codes.source.kind !== "weight")
      fail(
        "DequantizeLinear",
        `blocks of 4 bits are read from a uint8 weight along axis 1, not from ${codes}.`,
      );
    if (scale.rank !== 2 || !dimEquals(dimMultiply(scale.shape[1]!, blockSize), inner))
      fail("DequantizeLinear", `${scale} is not one scale for each block of ${blockSize} in ${codes}.`);
    return { dtype: scale.dtype, shape: [out, inner] };
  }
  if (!shapeEquals(scale.shape, codes.shape.slice(axis, axis + 1)))
    fail("DequantizeLinear", `the scale ${formatShape(scale.shape)} does not fit axis ${axis} of ${codes}.`);
  return { dtype: scale.dtype, shape: codes.shape };
};

export const inferQGemm: Infer<"QGemm"> = ([a, aScale, aZero, b, bScale, bZero], { transB }) => {
  if (a.rank !== 2 || b.rank !== 2) fail("QGemm", `needs two axes, got ${a} and ${b}.`);
  if (a.dtype !== "uint8" || b.dtype !== "int8") fail("QGemm", `needs uint8 and int8, got ${a} and ${b}.`);
  const [inner, columns] = (transB ? [b.shape[1], b.shape[0]] : b.shape) as [Dim, Dim];
  if (!dimEquals(a.shape[1]!, inner))
    fail(
      "QGemm",
      `inner sizes differ: ${formatShape(a.shape)} times ${formatShape(b.shape)}${transB ? "ᵀ" : ""}.`,
    );
  if (aZero.dtype !== "uint8" || aScale.rank > 0 || aZero.rank > 0)
    fail("QGemm", `a needs one scale and one uint8 zero point, got ${aScale} and ${aZero}.`);
  const fits = (x: Value): boolean => x.rank === 0 || shapeEquals(x.shape, [columns]);
  if (bZero.dtype !== "int8" || !fits(bScale) || !fits(bZero))
    fail("QGemm", `b needs a scale and an int8 zero point, or one per column, got ${bScale} and ${bZero}.`);
  return { dtype: "float32", shape: [a.shape[0]!, columns] };
};

export const inferMatMulNBits: Infer<"MatMulNBits"> = ([x, codes, scales]) => {
  if (codes.rank !== 3 || codes.dtype !== "uint8" || !shapeEquals(scales.shape, codes.shape.slice(0, 2)))
    fail("MatMulNBits", `needs uint8 blocks of codes and a scale for each, got ${codes} and ${scales}.`);
  const [out, blocks, bytes] = codes.shape as [Dim, Dim, Dim];
  if (x.rank !== 2 || x.dtype !== "float32" || !dimEquals(x.shape[1]!, dimProduct([blocks, bytes, 2])))
    fail("MatMulNBits", `${x} does not fit rows of ${formatShape([blocks, bytes])} bytes.`);
  return { dtype: "float32", shape: [x.shape[0]!, out] };
};
