import fc from "fast-check";
import { expect } from "vitest";
import { tensor } from "../../../src/tensor/index.ts";
import type { KeptExample } from "../../../src/training/prefix-cache/index.ts";

export { float32, kept } from "./kept-values.ts";

/** Tensors of any shape and any bits, NaNs included. */
export const anyKept: fc.Arbitrary<KeptExample> = fc
  .dictionary(
    fc.string(),
    fc.array(fc.nat(4), { maxLength: 3 }).chain((shape) => {
      const length = shape.reduce((a, b) => a * b, 1);
      return fc
        .uint8Array({ minLength: 4 * length, maxLength: 4 * length })
        .map((bytes) => tensor("float32", shape, new Float32Array(bytes.slice().buffer)));
    }),
    { maxKeys: 4, noNullPrototype: true },
  )
  .map((tensors) => new Map(Object.entries(tensors)));

const bits = ({ buffer, byteOffset, length }: Float32Array) => [
  ...new Uint32Array(buffer, byteOffset, length),
];

/** As plain data with the floats' bits, so that NaNs and zeros of either sign are told apart. */
export const plain = (values: KeptExample | undefined) =>
  values && [...values].map(([name, { dtype, shape, data }]) => ({ name, dtype, shape, bits: bits(data) }));

export const expectSame = (actual: KeptExample | undefined, expected: KeptExample | undefined): void =>
  expect(plain(actual)).toEqual(plain(expected));
