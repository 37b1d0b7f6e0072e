import { type Lowering, op, scalar, type Value } from "../graph/index.ts";

type Rewrite = NonNullable<Lowering["QuantizedMatMul"]>;

/** x in codes of 8 bits, a scale for each row: x ≈ scales · (codes - 128), scales [rows, 1]. */
type Rows = { readonly codes: Value; readonly scales: Value };

const unit = scalar(1);
const middle = scalar(128, "uint8");
/** As many zero points as there are scales. */
const zeroPoints = ({ shape }: Value): Value => op.full(0, shape, "int8");

/** x / max |row| · 127, rounded. A row of zeros stays one. */
function quantizeRows(x: Value): Rows {
  const largest = op.reduceMax(op.abs(x));
  const scales = op.mul(op.where(op.greater(largest, 0), largest, 1), 1 / 127);
  return { codes: op.quantizeLinear(op.div(x, scales), unit, middle), scales };
}

/**
 * Products of integers. Rows of x are quantised to 8 bits, each by its own largest value; of x Ŵ, where the weight's scales go
 * along the inner axis, they are folded into x first. One copy of the codes serves both directions. Values that several
 * weights multiply, as attention's projections do, are quantised once.
 */
export function integerProducts(): Rewrite {
  const quantized = new WeakMap<Value, Rows>();
  const rowsOf = (x: Value): Rows => {
    const rows = quantized.get(x) ?? quantizeRows(x);
    quantized.set(x, rows);
    return rows;
  };
  return ([x, codes, scales], attributes) => {
    const { transB, rounded } = attributes;
    if (!rounded || codes.dtype !== "int8") return dequantizedProducts([x, codes, scales], attributes);
    const rows = rowsOf(transB ? x : op.mul(x, scales));
    const scale = transB ? scales : unit;
    const products = op.qGemm(
      { codes: rows.codes, scale: unit, zeroPoint: middle },
      { codes, scale, zeroPoint: zeroPoints(scale) },
      { transB },
    );
    return op.mul(products, rows.scales);
  };
}

/**
 * Products for few rows, whose time is that of reading the weight: those with weights of 4 bits read these as they are. The
 * operator packs them, and takes codes from 0 to 15, which are made of signed ones when the program is loaded.
 */
export function packedProducts(): Rewrite {
  const integers = integerProducts();
  return ([x, codes, scales], attributes) => {
    if (codes.dtype !== "uint8" || !attributes.transB) return integers([x, codes, scales], attributes);
    const [out, bytes] = codes.shape as [number, number];
    const blocks = scales.shape[1] as number;
    const unsigned = op.bitwiseXor(codes, scalar(0x88, "uint8"));
    return op.matMulNBits(x, op.reshape(unsigned, [out, blocks, bytes / blocks]), scales);
  };
}

/**
 * Products with the weight that the codes stand for, made anew for each product; nothing else is rounded. It is made after x:
 * as a function of what is known from the start it might be made long before, and all such weights be there at the same time.
 */
export const dequantizedProducts: Rewrite = ([x, codes, scales], { transB }) =>
  op.gemm(x, op.dequantizedWeight(codes, op.after(scales, x)), { transB });
