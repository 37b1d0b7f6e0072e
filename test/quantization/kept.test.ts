import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Batch } from "../../src/data/index.ts";
import type { Engine } from "../../src/runtime/index.ts";
import { quantizeBase } from "../../src/training/index.ts";
import { referenceCases } from "../support/reference-case.ts";
import { sharedEngine } from "../support/run-graph.ts";

const engine = sharedEngine({ threads: 1 });
const reference = referenceCases(fileURLToPath(new URL("../vectors/models", import.meta.url))).find(
  ({ expected }) => expected.name === "llama-qv",
)!;

let cacheDirectory: string;
beforeEach(() => {
  cacheDirectory = mkdtempSync(join(tmpdir(), "graft-kept-"));
});
afterEach(() => rmSync(cacheDirectory, { recursive: true }));

/** Whether programs were loaded, and what the check says. */
async function checked(change: (batch: Batch) => void = () => {}, dtype: "int8" | "int4" = "int8") {
  const { baseModel: model } = await reference.loadAdapted();
  const batch = await reference.batch();
  change(batch);
  let sessions = 0;
  const counting: Engine = {
    device: engine().device,
    version: engine().version,
    createSession(...args) {
      sessions++;
      return engine().createSession(...args);
    },
    upload: (tensors) => engine().upload(tensors),
    dispose: () => engine().dispose(),
  };
  const { layers } = await quantizeBase(model, { dtype, engine: counting, batch, cacheDirectory });
  const verdicts = layers.map(({ linear, ...layer }) => ({ ...layer, now: linear.quantized?.rounded }));
  return { ran: sessions > 0, verdicts };
}

const keptFiles = (): string[] => {
  const [folder] = readdirSync(cacheDirectory);
  return readdirSync(join(cacheDirectory, folder!))
    .filter((name) => name.startsWith("check-"))
    .map((name) => join(cacheDirectory, folder!, name));
};

test("verdicts are found again", async () => {
  const first = await checked();
  const second = await checked();
  expect(first.ran).toBe(true);
  expect(first.verdicts.length).toBeGreaterThan(0);
  expect(second).toEqual({ ...first, ran: false });
});

test("another batch is another question", async () => {
  await checked();
  const other = await checked(({ inputIds: { data } }) => {
    data[0] = data[0] === 3n ? 4n : 3n;
  });
  expect(other.ran).toBe(true);
  expect(keptFiles()).toHaveLength(2);
});

test("a file that is no JSON is made again", async () => {
  const first = await checked();
  writeFileSync(keptFiles()[0]!, "{");
  expect(await checked()).toEqual(first);
  expect((await checked()).ran).toBe(false);
});

test("weights in 4 bits have no verdicts to keep", async () => {
  expect(await checked(undefined, "int4")).toEqual({ ran: false, verdicts: [] });
});
