import { describe, expect, it } from "vitest";
import { notify, type TrainerCallback } from "../../src/training/callbacks.ts";

const saved = { step: 3, location: "out/checkpoint-3" };

describe("notify", () => {
  it("tells every callback in order, waiting for each, and reports a wish to stop", async () => {
    const heard: string[] = [];
    const callbacks: TrainerCallback[] = [
      {
        onSave: async ({ location }) => {
          await new Promise((resolve) => setTimeout(resolve, 5));
          heard.push(`a ${location}`);
          return "stop";
        },
      },
      { onStepEnd: () => "stop" },
      {
        onSave: ({ step }) => {
          heard.push(`b ${step}`);
        },
      },
    ];
    expect(await notify(callbacks, "onSave", saved)).toBe(true);
    expect(heard).toEqual(["a out/checkpoint-3", "b 3"]);
    expect(await notify(callbacks.slice(1), "onSave", saved)).toBe(false);
  });

  it("lets what a callback throws end training", async () => {
    const callbacks: TrainerCallback[] = [
      {
        onSave: () => {
          throw new Error("no room");
        },
      },
    ];
    await expect(notify(callbacks, "onSave", saved)).rejects.toThrow("no room");
  });

  it("keeps `this` of a callback that is an object with state", async () => {
    class Counter {
      count = 0;
      onSave() {
        this.count++;
      }
    }
    const counter = new Counter();
    await notify([counter], "onSave", saved);
    expect(counter.count).toBe(1);
  });
});
