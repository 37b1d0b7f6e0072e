import { describe, expect, it } from "vitest";
import { type PrefixCachePlanOptions, planPrefixCache } from "../../../src/training/prefix-cache/index.ts";

const GB = 1e9;
/** 720 examples of 2.4 MB, 1.73 GB in all, for three epochs on a machine with room. */
const usual: PrefixCachePlanOptions = {
  mode: "auto",
  frozen: "the frozen 22 layers",
  bytesPerExample: 2.4e6,
  examples: 720,
  epochs: 3,
  savedShare: 0.4,
  savedFlops: 50e9,
  freeMemory: 16 * GB,
  freeDisk: 100 * GB,
};
const [all, none] = [
  "each example goes through the frozen 22 layers once",
  "no output of the frozen 22 layers",
];

describe("planPrefixCache", () => {
  it.each<[string, Partial<PrefixCachePlanOptions>, string, number, number, string]>([
    [
      "memory where all fits into half of what is free",
      {},
      "memory",
      8 * GB,
      0,
      `${all} and the result is kept in memory: 2.4 MB for each of 720 examples, 1.7 GB`,
    ],
    [
      "disk where memory is too small",
      { freeMemory: 3.4 * GB },
      "disk",
      0,
      50 * GB,
      `${all} and the result is kept on disk: 2.4 MB for each of 720 examples, 1.7 GB`,
    ],
    [
      "both where neither holds all",
      { freeMemory: 3 * GB, freeDisk: 1 * GB },
      "memory+disk",
      1.5 * GB,
      0.5 * GB,
      `${all} and the result is kept in memory and on disk: 2.4 MB for each of 720 examples, 1.7 GB`,
    ],
    [
      "what fits where both are too small",
      { freeMemory: 1 * GB, freeDisk: 1 * GB },
      "memory+disk",
      0.5 * GB,
      0.5 * GB,
      `${all} and the result is kept in memory and on disk: 2.4 MB for each of 416 of 720 examples, 998 MB; the others go through it in each epoch`,
    ],
    [
      "memory alone where there is no disk",
      { freeMemory: 2 * GB, freeDisk: undefined },
      "memory",
      1 * GB,
      0,
      `${all} and the result is kept in memory: 2.4 MB for each of 416 of 720 examples, 998 MB; the others go through it in each epoch`,
    ],
    [
      "no disk that is slower than computing: 2.4 MB in 12 ms, against 3 GFLOP in 10",
      { freeMemory: 2 * GB, savedFlops: 3e9 },
      "memory",
      1 * GB,
      0,
      `${all} and the result is kept in memory: 2.4 MB for each of 416 of 720 examples, 998 MB; the others go through it in each epoch; reading from disk would take longer than computing`,
    ],
    [
      "the disk where a measurement says that computing takes longer",
      { freeMemory: 2 * GB, savedFlops: 3e9, savedSeconds: 0.013 },
      "disk",
      0,
      50 * GB,
      `${all} and the result is kept on disk: 2.4 MB for each of 720 examples, 1.7 GB`,
    ],
    [
      "not if each example is needed once",
      { epochs: 1 },
      "off",
      0,
      0,
      `${none} is kept: each example is needed only once`,
    ],
    ["not if it is off", { mode: "off" }, "off", 0, 0, `${none} is kept: the cache is off`],
    ["not if there is nothing", { examples: 0 }, "off", 0, 0, `${none} is kept: there is none`],
    [
      "not if the frozen part is small",
      { savedShare: 0.06 },
      "off",
      0,
      0,
      `${none} is kept: it would save only 4 % of the work`,
    ],
    ["but over more epochs", { savedShare: 0.06, epochs: 8 }, "memory", 8 * GB, 0, ""],
    [
      "not if too little of it fits",
      { freeMemory: 0.2 * GB, freeDisk: 0.1 * GB },
      "off",
      0,
      0,
      `${none} is kept: there is room for 62 of 720 examples; it would save only 2.3 % of the work`,
    ],
    [
      "not if nothing fits",
      { freeMemory: 4e6, freeDisk: 1e6 },
      "off",
      0,
      0,
      `${none} is kept: an example takes 2.4 MB, and there is room for 2.0 MB`,
    ],
    [
      "not if only a slow disk has room",
      { freeMemory: 4e6, savedFlops: 1e9 },
      "off",
      0,
      0,
      `${none} is kept: an example takes 2.4 MB, and there is room for 2.0 MB; reading from disk would take longer than computing`,
    ],
    [
      "memory where asked for, as much as fits",
      { mode: "memory", freeMemory: 2 * GB },
      "memory",
      1 * GB,
      0,
      "",
    ],
    [
      "memory where asked for, however little it saves",
      { mode: "memory", savedShare: 0.01 },
      "memory",
      8 * GB,
      0,
      "",
    ],
    ["no memory if each example is needed once", { mode: "memory", epochs: 1 }, "off", 0, 0, ""],
    ["disk where asked for, for later runs too", { mode: "disk", epochs: 1 }, "disk", 0, 50 * GB, ""],
    ["disk where asked for, though it is slow", { mode: "disk", savedFlops: 1 }, "disk", 0, 50 * GB, ""],
    ["no disk where there is none", { mode: "disk", freeDisk: undefined }, "off", 0, 0, ""],
    ["no more than the bound", { maxBytes: 1 * GB }, "memory", 1 * GB, 0, ""],
    [
      "the bound for both together",
      { maxBytes: 1 * GB, freeMemory: 1 * GB },
      "memory+disk",
      0.5 * GB,
      0.5 * GB,
      "",
    ],
    ["a named bound beyond the share", { mode: "memory", maxBytes: 12 * GB }, "memory", 12 * GB, 0, ""],
    ["but not beyond what is free", { mode: "memory", maxBytes: 20 * GB }, "memory", 16 * GB, 0, ""],
    [
      "what an earlier run left, though there is memory and but one epoch",
      { epochs: 1, storedExamples: 720 },
      "disk",
      0,
      50 * GB + 720 * 2.4e6,
      "",
    ],
    [
      "not for the little that an earlier run left",
      { epochs: 1, storedExamples: 36 },
      "off",
      0,
      0,
      `${none} is kept: it would save only 2 % of the work`,
    ],
  ])("%s", (_, options, mode, memoryBytes, diskBytes, reason) => {
    const plan = planPrefixCache({ ...usual, ...options });
    expect(plan).toEqual({ mode, memoryBytes, diskBytes, reason: reason === "" ? plan.reason : reason });
    expect(plan.reason).not.toMatch(/NaN|undefined|Infinity/);
  });

  it("never gives more than is there or allowed, and names the stores it gives room to", () => {
    for (const mode of ["auto", "memory", "disk"] as const)
      for (const freeMemory of [0, 1e6, 1e8, 1e10])
        for (const freeDisk of [undefined, 0, 1e8, 1e10])
          for (const maxBytes of [undefined, 0, 1e7, 1e9]) {
            const limits = { freeMemory, freeDisk, ...(maxBytes !== undefined && { maxBytes }) };
            const plan = planPrefixCache({ ...usual, mode, ...limits });
            expect(plan.memoryBytes).toBeLessThanOrEqual(freeMemory);
            expect(plan.diskBytes).toBeLessThanOrEqual(freeDisk ?? 0);
            expect(plan.memoryBytes + plan.diskBytes).toBeLessThanOrEqual(maxBytes ?? Infinity);
            expect(plan.mode.includes("memory")).toBe(plan.memoryBytes > 0);
            expect(plan.mode.includes("disk")).toBe(plan.diskBytes > 0);
          }
  });
});
