import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { EarlyStopping } from "../../src/training/early-stopping.ts";
import { readVectors } from "./vectors.ts";

type Case = { patience: number; minDelta: number; losses: number[]; stopsAt: number | null; best: number };

describe("EarlyStopping", () => {
  it.each(readVectors<Case[]>("early-stopping.json"))(
    "stops where transformers does: patience $patience, minDelta $minDelta, losses $losses",
    ({ patience, minDelta, losses, stopsAt, best }) => {
      const stopping = new EarlyStopping({ patience, minDelta });
      const stops = losses.map((loss) => stopping.update(loss).stop);
      expect(stops.indexOf(true)).toBe(stopsAt ?? -1);
      expect(stopping.state.best).toBe(best);
    },
  );

  it("says which evaluation was the best", () => {
    const stopping = new EarlyStopping({ patience: 9 });
    expect([3, 2, 2, Number.NaN, 2.5, 1].map((loss) => stopping.update(loss).best)).toEqual([
      true,
      true,
      false,
      false,
      false,
      true,
    ]);
  });

  it("never improves on NaN, from the first evaluation on", () => {
    const stopping = new EarlyStopping({ patience: 2 });
    expect(stopping.update(Number.NaN)).toEqual({ best: false, stop: false });
    expect(stopping.update(Number.NaN)).toEqual({ best: false, stop: true });
    expect(stopping.update(5)).toEqual({ best: true, stop: false });
  });

  it("goes on from a saved state as if it had never stopped", () => {
    const losses = fc.array(fc.integer({ min: 0, max: 9 }), { maxLength: 20 });
    fc.assert(
      fc.property(
        losses,
        losses,
        fc.integer({ min: 1, max: 4 }),
        fc.nat(2),
        (before, after, patience, minDelta) => {
          const whole = new EarlyStopping({ patience, minDelta });
          for (const loss of before) whole.update(loss);
          const resumed = new EarlyStopping({ patience, minDelta });
          resumed.restore(whole.state);
          expect(after.map((loss) => resumed.update(loss))).toEqual(after.map((loss) => whole.update(loss)));
        },
      ),
    );
  });

  it("lists what is wrong", () => {
    expect(() => new EarlyStopping({ patience: 0, minDelta: -1 })).toThrow(
      "Early stopping: patience must be a whole number of at least 1, got 0; minDelta must be a finite number of at least 0, got -1.",
    );
  });
});
