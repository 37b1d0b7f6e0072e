import { expect } from "vitest";

type Numbers = ArrayLike<number>;

/** Largest absolute difference. */
export function maxAbsDifference(actual: Numbers, expected: Numbers): number {
  expect(actual.length).toBe(expected.length);
  let largest = 0;
  for (let i = 0; i < actual.length; i++) {
    const difference = Math.abs(actual[i]! - expected[i]!);
    if (!(difference <= largest)) largest = difference; // NaN stays
  }
  return largest;
}

/** ‖actual - expected‖ / ‖expected‖. */
export function relativeL2(actual: Numbers, expected: Numbers): number {
  expect(actual.length).toBe(expected.length);
  let difference = 0;
  let size = 0;
  for (let i = 0; i < actual.length; i++) {
    difference += (actual[i]! - expected[i]!) ** 2;
    size += expected[i]! ** 2;
  }
  return size === 0 ? Math.sqrt(difference) : Math.sqrt(difference / size);
}
