import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  getScheduler,
  getWarmupSteps,
  type SchedulerType,
  schedulerTypes,
} from "../../src/training/schedules.ts";
import { readVectors } from "./vectors.ts";

type Recorded = {
  schedules: {
    type: SchedulerType;
    learningRate: number;
    warmupSteps: number;
    trainingSteps: number;
    rates: number[];
  }[];
  ratios: { trainingSteps: number; warmupRatio: number; warmupSteps: number }[];
};
const recorded = readVectors<Recorded>("schedules.json");

describe("getScheduler agrees with transformers.get_scheduler", () => {
  it.each(recorded.schedules.filter(({ type, warmupSteps }) => type !== "constant" || warmupSteps === 0))(
    "$type, lr $learningRate, $warmupSteps of $trainingSteps steps warm-up",
    ({ rates, type, ...options }) => {
      const schedule = getScheduler(type, options);
      rates.forEach((rate, step) => {
        // Exact but for cosine, where the last digit of Math.cos may differ from the C library's.
        expect(Math.abs(schedule(step) - rate)).toBeLessThanOrEqual(
          type === "cosine" ? 2e-16 * options.learningRate : 0,
        );
      });
    },
  );

  it.each(recorded.ratios)(
    "$warmupRatio of $trainingSteps steps is $warmupSteps",
    ({ warmupSteps, ...given }) => {
      expect(getWarmupSteps(given.trainingSteps, given)).toBe(warmupSteps);
    },
  );
});

describe("getScheduler", () => {
  it("lets constant warm up too", () => {
    const options = { learningRate: 3e-4, warmupSteps: 4, trainingSteps: 9 };
    const [constant, withWarmup] = [
      getScheduler("constant", options),
      getScheduler("constant_with_warmup", options),
    ];
    for (let step = 0; step < 12; step++) expect(constant(step)).toBe(withWarmup(step));
    expect(constant(0)).toBe(0);
  });

  it("rises to the peak, then never rises again", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...schedulerTypes),
        fc.nat(20),
        fc.nat(60),
        (type, warmupSteps, trainingSteps) => {
          const schedule = getScheduler(type, { learningRate: 1, warmupSteps, trainingSteps });
          const rates = Array.from({ length: trainingSteps + 5 }, (_, step) => schedule(step));
          rates.forEach((rate, step) => {
            expect(rate).toBeGreaterThanOrEqual(0);
            expect(rate).toBeLessThanOrEqual(1);
            if (step > 0 && step < warmupSteps) expect(rate).toBeGreaterThan(rates[step - 1]!);
            if (step > warmupSteps && step <= trainingSteps)
              expect(rate).toBeLessThanOrEqual(rates[step - 1]!);
          });
          if (warmupSteps < trainingSteps) expect(rates[warmupSteps]).toBe(1);
        },
      ),
    );
  });

  it("prefers warmupSteps to warmupRatio", () => {
    expect(getWarmupSteps(100, { warmupSteps: 3, warmupRatio: 0.5 })).toBe(3);
    expect(getWarmupSteps(100, {})).toBe(0);
  });

  it("lists everything that is wrong", () => {
    expect(() =>
      getScheduler("cosin" as SchedulerType, {
        learningRate: Number.NaN,
        warmupSteps: 1.5,
        trainingSteps: -1,
      }),
    ).toThrow(
      'Learning-rate schedule: no schedule is called "cosin" (closest: "cosine"); there are constant, constant_with_warmup, ' +
        "linear, cosine; learningRate must be a finite number of at least 0, got NaN; warmupSteps must be a whole number of " +
        "at least 0, got 1.5; trainingSteps must be a whole number of at least 0, got -1.",
    );
  });
});
