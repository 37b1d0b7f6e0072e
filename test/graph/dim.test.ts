import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { dimDivide } from "../../src/graph/dim.ts";
import {
  type Dim,
  dimAdd,
  dimEquals,
  dimFloorDivide,
  dimMultiply,
  dimSubtract,
  evaluateDim,
  symbol,
  symbolName,
} from "../../src/graph/index.ts";

const symbols = ["batch", "past", "sequence"] as const;
const dims: fc.Arbitrary<Dim> = fc
  .array(fc.tuple(fc.integer({ min: -4, max: 4 }), fc.subarray([...symbols, ...symbols])), { maxLength: 4 })
  .map((terms) =>
    terms.map(([k, factors]) => factors.map(symbol).reduce(dimMultiply, k as Dim)).reduce<Dim>(dimAdd, 0),
  );
/** One term that is not 0: what can divide. */
const monomials: fc.Arbitrary<Dim> = fc
  .tuple(
    fc.integer({ min: -4, max: 4 }).filter((k) => k !== 0),
    fc.subarray([...symbols, ...symbols]),
  )
  .map(([k, factors]) => factors.map(symbol).reduce(dimMultiply, k as Dim));
const sizes = fc
  .tuple(fc.nat(9), fc.nat(9), fc.nat(9))
  .map((values) => new Map(symbols.map((name, i) => [name as string, values[i]!])));

const expectEqual = (a: Dim, b: Dim): void => expect(dimEquals(a, b), `${a} = ${b}`).toBe(true);

describe("the algebra of dimensions", () => {
  test("addition and multiplication commute and associate", () => {
    fc.assert(
      fc.property(dims, dims, dims, (a, b, c) => {
        for (const combine of [dimAdd, dimMultiply]) {
          expectEqual(combine(a, b), combine(b, a));
          expectEqual(combine(combine(a, b), c), combine(a, combine(b, c)));
        }
      }),
    );
  });

  test("multiplication distributes over addition", () => {
    fc.assert(
      fc.property(dims, dims, dims, (a, b, c) => {
        expectEqual(dimMultiply(a, dimAdd(b, c)), dimAdd(dimMultiply(a, b), dimMultiply(a, c)));
      }),
    );
  });

  test("a symbol's quotient rounds down, and is a symbol like any other", () => {
    fc.assert(
      fc.property(
        dims,
        sizes,
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 1, max: 9 }),
        (a, known, by, then) => {
          const quotient = dimFloorDivide(symbol("past"), by);
          const past = known.get("past")!;
          expect(evaluateDim(quotient, known)).toBe(Math.floor(past / by));
          expect(evaluateDim(dimFloorDivide(quotient, then), known)).toBe(Math.floor(past / (by * then)));
          expect(evaluateDim(dimAdd(dimMultiply(quotient, a), a), known)).toBe(
            (Math.floor(past / by) + 1) * evaluateDim(a, known),
          );
          expectEqual(dimSubtract(dimMultiply(quotient, 2), quotient), quotient);
        },
      ),
    );
    expect(dimFloorDivide(7, 2)).toBe(3);
    expectEqual(dimFloorDivide(symbol("past"), 1), symbol("past"));
    for (const [dim, divisor] of [
      [dimMultiply(symbol("past"), 2), 2],
      [symbol("past"), 0],
      [symbol("past"), 1.5],
    ] as const)
      expect(() => dimFloorDivide(dim, divisor)).toThrow(/divided/);
  });

  test("0 and 1 are neutral, and a - a is 0", () => {
    fc.assert(
      fc.property(dims, (a) => {
        expectEqual(dimAdd(a, 0), a);
        expectEqual(dimMultiply(a, 1), a);
        expectEqual(dimMultiply(a, 0), 0);
        expectEqual(dimSubtract(a, a), 0);
      }),
    );
  });

  test("evaluating is a homomorphism", () => {
    fc.assert(
      fc.property(dims, dims, sizes, (a, b, known) => {
        const at = (dim: Dim) => evaluateDim(dim, known) + 0; // -0 is 0
        expect(at(dimAdd(a, b))).toBe(at(a) + at(b));
        expect(at(dimMultiply(a, b))).toBe(at(a) * at(b) + 0);
        expect(at(dimSubtract(a, b))).toBe(at(a) - at(b));
      }),
    );
  });

  test("division undoes multiplication by one term", () => {
    fc.assert(
      fc.property(dims, monomials, (a, b) => {
        expectEqual(dimDivide(dimMultiply(a, b), b)!, a);
      }),
    );
  });

  test("division is undefined unless it is exact", () => {
    const [batch, sequence] = [symbol("batch"), symbol("sequence")];
    expect(dimDivide(7, 2)).toBeUndefined();
    expect(dimDivide(4, 0)).toBeUndefined();
    expect(dimDivide(sequence, batch)).toBeUndefined();
    expect(dimDivide(dimAdd(batch, sequence), dimAdd(batch, sequence))).toBeUndefined();
    expect(dimDivide(dimMultiply(3, batch), 2)).toBeUndefined();
  });

  test("polynomials print in one way, however they were made", () => {
    const [a, b] = [symbol("a"), symbol("b")];
    const square = dimMultiply(dimAdd(a, b), dimAdd(b, a));
    expect(String(square)).toBe("a*a + 2*a*b + b*b");
    expect(String(dimAdd(dimMultiply(b, 2), dimSubtract(3, a)))).toBe("3 + -1*a + 2*b");
  });

  test("what is constant is a plain number", () => {
    const a = symbol("a");
    expect(dimSubtract(dimAdd(a, 5), a)).toBe(5);
  });
});

describe("symbols", () => {
  test("an unknown symbol is named", () => {
    const total = dimAdd(symbol("past"), symbol("sequence"));
    expect(() => evaluateDim(total, new Map([["past", 1]]))).toThrow('The size of "sequence" is not known.');
  });

  test.each(["", "2", "a*b", "a + b", "a, b", "1a", "-1"])('"%s" is no name', (name) => {
    expect(() => symbol(name)).toThrow(`"${name}" cannot name a dimension`);
  });

  test("the name of a dimension is known where it is one symbol", () => {
    const a = symbol("a");
    expect(symbolName(a)).toBe("a");
    for (const dim of [3, dimMultiply(2, a), dimAdd(a, 1), dimMultiply(a, a)])
      expect(symbolName(dim)).toBeUndefined();
  });
});
