import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  checkpointName,
  checkpointStep,
  checkpointsToDelete,
  latestCheckpoint,
  sortCheckpoints,
} from "../../src/training/checkpoints.ts";
import { readVectors } from "./vectors.ts";

describe("checkpoints", () => {
  it("are named after their step, both ways", () => {
    fc.assert(fc.property(fc.nat(), (step) => checkpointStep(checkpointName(step)) === step));
    for (const name of [
      "checkpoint-",
      "checkpoint-1x",
      "checkpoint-007",
      "xcheckpoint-1",
      "checkpoint-1.tmp",
      "checkpoint--1",
    ])
      expect(checkpointStep(name)).toBeUndefined();
  });

  it("sort by number, not by letters, and leave other files alone", () => {
    const names = ["checkpoint-100", "adapter_model.safetensors", "checkpoint-20", "checkpoint-3", "runs"];
    expect(sortCheckpoints(names)).toEqual(["checkpoint-3", "checkpoint-20", "checkpoint-100"]);
    expect(latestCheckpoint(names)).toBe("checkpoint-100");
    expect(latestCheckpoint(["runs"])).toBeUndefined();
  });

  type Case = { steps: number[]; limit: number | null; best: number | null; left: number[] };
  it.each(readVectors<Case[]>("rotation.json"))(
    "are deleted as transformers deletes them: $steps, limit $limit, best $best",
    ({ steps, limit, best, left }) => {
      const names = steps.map(checkpointName);
      const gone = checkpointsToDelete(names, {
        saveTotalLimit: limit ?? undefined,
        best: best === null ? undefined : checkpointName(best),
      });
      expect(
        names
          .filter((name) => !gone.includes(name))
          .map(checkpointStep)
          .sort((a, b) => a! - b!),
      ).toEqual(left);
    },
  );
});
