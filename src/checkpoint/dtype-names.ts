import type { DType } from "../tensor/index.ts";

/**
 * Names in a safetensors header, in the order of the Rust crate's `Dtype`: by increasing alignment. Writers
 * lay tensors out by this order reversed.
 */
const known: readonly (readonly [name: string, dtype?: DType])[] = [
  ["BOOL", "bool"],
  ["F4"],
  ["F6_E2M3"],
  ["F6_E3M2"],
  ["U8", "uint8"],
  ["I8", "int8"],
  ["F8_E5M2", "float8e5m2"],
  ["F8_E4M3", "float8e4m3fn"],
  ["F8_E8M0"],
  ["F8_E4M3FNUZ"],
  ["F8_E5M2FNUZ"],
  ["I16", "int16"],
  ["U16", "uint16"],
  ["F16", "float16"],
  ["BF16", "bfloat16"],
  ["I32", "int32"],
  ["U32", "uint32"],
  ["F32", "float32"],
  ["C64"],
  ["F64", "float64"],
  ["I64", "int64"],
  ["U64", "uint64"],
];

/** What a name in a header stands for: undefined where the format has the type and Graft does not. */
export const headerDtypes: ReadonlyMap<string, DType | undefined> = new Map(
  known.map(([name, dtype]) => [name, dtype]),
);

/** Names that Graft reads and writes. */
export const supportedDtypes: readonly string[] = known
  .filter(([, dtype]) => dtype !== undefined)
  .map(([name]) => name);

const names = new Map(
  known.flatMap(([name, dtype], rank) => (dtype === undefined ? [] : [[dtype, { name, rank }] as const])),
);

/** The name of `dtype` in a header. */
export const headerName = (dtype: DType): string => names.get(dtype)!.name;

/** Place of `dtype` in the order of alignment; higher ranks come first in a file. */
export const alignmentRank = (dtype: DType): number => names.get(dtype)!.rank;
