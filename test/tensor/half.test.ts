import { readFileSync } from "node:fs";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { bytesSource, readSafetensors, readTensor } from "../../src/checkpoint/index.ts";
import {
  bfloat16ArrayToFloat32,
  bfloat16ToFloat32,
  float16ArrayToFloat32,
  float16ToFloat32,
  float32ArrayToBfloat16,
  float32ArrayToFloat16,
  float32ToBfloat16,
  float32ToFloat16,
  fromFloat32,
  type Tensor,
  tensor,
  toFloat32,
} from "../../src/tensor/index.ts";

/** Recorded by scripts/half_vectors.py. */
const vectors: Record<string, Tensor> = {};

beforeAll(async () => {
  const file = new URL("../vectors/tensor/half.safetensors", import.meta.url);
  const { tensors } = await readSafetensors(bytesSource("half.safetensors", readFileSync(file)));
  for (const [name, entry] of tensors) vectors[name] = await readTensor(entry);
});

const bits = (values: Float32Array) => new Uint32Array(values.buffer, values.byteOffset, values.length);
const floats = (name: string) => vectors[name]!.data as Float32Array;
const halves = (name: string) => vectors[name]!.data as Uint16Array;
const all16 = Uint16Array.from({ length: 65_536 }, (_, i) => i);
const all8 = Uint8Array.from({ length: 256 }, (_, i) => i);

describe("as PyTorch converts", () => {
  test("every float16 to float32, bit for bit, NaNs included", () => {
    expect(bits(float16ArrayToFloat32(all16))).toEqual(bits(floats("float16.widened")));
  });

  test("every bfloat16 to float32, bit for bit, NaNs included", () => {
    expect(bits(bfloat16ArrayToFloat32(all16))).toEqual(bits(floats("bfloat16.widened")));
  });

  test("float32 to float16 and bfloat16 around every rounding decision, and at random", () => {
    expect(float32ArrayToFloat16(floats("narrow.float32"))).toEqual(halves("narrow.float16"));
    expect(float32ArrayToBfloat16(floats("narrow.float32"))).toEqual(halves("narrow.bfloat16"));
  });

  test("NaN payloads to float16", () => {
    expect(float32ArrayToFloat16(floats("nan.float32"))).toEqual(halves("nan.float16"));
  });

  test.each(["float8e4m3fn", "float8e5m2"] as const)("every %s to float32", (dtype) => {
    expect(toFloat32(tensor(dtype, [256], all8)).data).toEqual(floats(`${dtype}.widened`));
  });

  test("int64 to float32, rounded once", () => {
    expect(toFloat32(vectors["integer.int64"]!).data).toEqual(floats("integer.float32"));
  });
});

describe("special values", () => {
  test.each([
    ["zero", 0, 0x0000, 0x0000],
    ["negative zero", -0, 0x8000, 0x8000],
    ["infinity", Infinity, 0x7c00, 0x7f80],
    ["negative infinity", -Infinity, 0xfc00, 0xff80],
    ["smallest float16 subnormal", 2 ** -24, 0x0001, 0x3380],
    ["half of it, a tie to even", 2 ** -25, 0x0000, 0x3300],
    ["just above half of it", 2 ** -25 * (1 + 2 ** -23), 0x0001, 0x3300],
    ["smallest float16 normal", 2 ** -14, 0x0400, 0x3880],
    ["largest float16", 65_504, 0x7bff, 0x4780],
    ["rounds down to the largest float16", 65_519, 0x7bff, 0x4780],
    ["rounds up to infinity in float16", 65_520, 0x7c00, 0x4780],
    ["largest float32", 3.4028234663852886e38, 0x7c00, 0x7f80],
    ["smallest float32 subnormal", 2 ** -149, 0x0000, 0x0000],
  ])("%s", (_, value, float16, bfloat16) => {
    expect(float32ToFloat16(value)).toBe(float16);
    expect(float32ToBfloat16(value)).toBe(bfloat16);
  });

  test("NaN stays NaN, quiet, with its sign", () => {
    const nans = new Float32Array(new Uint32Array([0x7f80_0001, 0xff80_0001]).buffer);
    expect([...float32ArrayToFloat16(nans)]).toEqual([0x7e00, 0xfe00]);
    expect([...float32ArrayToBfloat16(nans)]).toEqual([0x7fc0, 0xffc0]);
    expect(float16ToFloat32(0x7e00)).toBeNaN();
    expect(bfloat16ToFloat32(0x7fc0)).toBeNaN();
  });
});

describe("properties", () => {
  // Half of them where float16 has values; most float32 values overflow it.
  const float = fc.oneof(fc.float({ noNaN: true }), fc.float({ noNaN: true, min: -65_536, max: 65_536 }));
  const half = fc.integer({ min: 0, max: 0xffff });

  test("widening then narrowing is the identity, except that NaNs become quiet", () => {
    const isNaN16 = (h: number) => (h & 0x7fff) > 0x7c00;
    const isNaNb16 = (h: number) => (h & 0x7fff) > 0x7f80;
    expect(float32ArrayToFloat16(float16ArrayToFloat32(all16))).toEqual(
      all16.map((h) => (isNaN16(h) ? h | 0x200 : h)),
    );
    expect(float32ArrayToBfloat16(bfloat16ArrayToFloat32(all16))).toEqual(
      all16.map((h) => (isNaNb16(h) ? h | 0x40 : h)),
    );
  });

  test.each([
    ["float16", float32ToFloat16, float16ToFloat32, 0x7c00, 2 ** 16],
    ["bfloat16", float32ToBfloat16, bfloat16ToFloat32, 0x7f80, 2 ** 128],
  ] as const)(
    "%s: no neighbour is nearer, and of two as near the even one is taken",
    (_, narrow, widen, infinity, overflow) => {
      // For rounding, infinity stands where the next power of two would be.
      const place = (h: number) => ((h & 0x7fff) === infinity ? Math.sign(widen(h)) * overflow : widen(h));
      fc.assert(
        fc.property(float, (value) => {
          fc.pre(Math.abs(value) < overflow);
          const result = narrow(value);
          const error = Math.abs(place(result) - value);
          for (const neighbour of [result - 1, result + 1]) {
            if ((neighbour & 0x8000) !== (result & 0x8000) || (neighbour & 0x7fff) > infinity) continue;
            const other = Math.abs(place(neighbour) - value);
            expect(other).toBeGreaterThanOrEqual(error);
            if (other === error) expect(result & 1).toBe(0);
          }
        }),
        { numRuns: 2000 },
      );
    },
  );

  test("arrays and elements agree", () => {
    fc.assert(
      fc.property(fc.array(float), fc.array(half), (values, patterns) => {
        const f = Float32Array.from(values);
        const h = Uint16Array.from(patterns);
        expect([...float32ArrayToFloat16(f)]).toEqual(values.map(float32ToFloat16));
        expect([...float32ArrayToBfloat16(f)]).toEqual(values.map(float32ToBfloat16));
        expect(float16ArrayToFloat32(h)).toEqual(Float32Array.from(patterns, float16ToFloat32));
        expect(bfloat16ArrayToFloat32(h)).toEqual(Float32Array.from(patterns, bfloat16ToFloat32));
      }),
    );
  });

  test("an array that begins inside its buffer", () => {
    const view = new Float32Array(new Float32Array([9, 1, 2]).buffer, 4, 2);
    expect([...float32ArrayToFloat16(view)]).toEqual([0x3c00, 0x4000]);
    expect([...float32ArrayToBfloat16(view)]).toEqual([0x3f80, 0x4000]);
  });
});

describe("tensors", () => {
  test("toFloat32 does not copy float32", () => {
    const source = tensor("float32", [2], new Float32Array(2));
    expect(toFloat32(source)).toBe(source);
  });

  test.each([
    ["float64", new Float64Array([0.1, -2])],
    ["int32", new Int32Array([1, -7])],
    ["int16", new Int16Array([1, -7])],
    ["int8", new Int8Array([1, -7])],
    ["uint32", new Uint32Array([1, 2 ** 32 - 1])],
    ["uint16", new Uint16Array([1, 65_535])],
    ["uint8", new Uint8Array([1, 255])],
    ["bool", new Uint8Array([0, 1])],
  ] as const)("toFloat32 of %s", (dtype, data) => {
    const result = toFloat32({ dtype, shape: [2], data });
    expect(result).toEqual({ dtype: "float32", shape: [2], data: Float32Array.from(data) });
  });

  test("uint64 beyond 2^63 rounds once", () => {
    const data = new BigUint64Array([2n ** 64n - 1n, 2n ** 63n + 2n ** 39n, 2n ** 63n + 2n ** 39n + 1n]);
    expect([...toFloat32(tensor("uint64", [3], data)).data]).toEqual([2 ** 64, 2 ** 63, 2 ** 63 + 2 ** 40]);
  });

  test.each(["float64", "float32", "float16", "bfloat16"] as const)("fromFloat32 to %s and back", (dtype) => {
    const source = tensor("float32", [2, 2], new Float32Array([0, -1.5, 96, 2 ** -10]));
    expect(toFloat32(fromFloat32(source, dtype))).toEqual(source);
  });
});
