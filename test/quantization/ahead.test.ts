import { describe, expect, test } from "vitest";
import { ahead } from "../../src/quantization/ahead.ts";

describe("tasks that are started ahead", () => {
  test("give their results in order, two at a time", async () => {
    const events: string[] = [];
    const task = (name: string, ms: number) => async () => {
      events.push(`start ${name}`);
      await new Promise((resolve) => setTimeout(resolve, ms));
      return name;
    };
    for await (const name of ahead([task("slow", 20), task("quick", 0), task("last", 0)])) events.push(name);
    expect(events).toEqual(["start slow", "start quick", "slow", "start last", "quick", "last"]);
  });

  test("fail where it is their turn", async () => {
    const seen: number[] = [];
    const all = async () => {
      const failing = async () => {
        throw new Error("second");
      };
      for await (const value of ahead<number>([async () => 1, failing, async () => 3])) seen.push(value);
    };
    await expect(all()).rejects.toThrow("second");
    expect(seen).toEqual([1]);
  });
});
