/** transformers' generate on fresh random checkpoints, prompts and settings: greedy and beam search. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { Decoders, recordedCases } from "../generation/recorded-case.ts";
import { sharedEngine } from "../support/run-graph.ts";

const script = fileURLToPath(new URL("../../scripts/record_generation_seq2seq.py", import.meta.url));
const {
  GRAFT_PYTHON: python,
  GRAFT_GENERATION_SEED: seed = "1",
  GRAFT_GENERATION_CASES: count = "40",
} = process.env;
if (!python) throw new Error("GRAFT_PYTHON names no interpreter. Run these tests with: npm run test:oracle");

const directory = mkdtempSync(join(tmpdir(), "graft-generation-"));
const made = spawnSync(python, [script, "--out", directory, "--random", count, "--seed", seed], {
  encoding: "utf8",
});
if (made.status !== 0) throw new Error(`${script} failed: ${made.stderr}`);
const cases = recordedCases(directory);

const decoders = new Decoders(sharedEngine({ threads: 1 }), directory);
afterAll(async () => {
  await decoders.dispose();
  rmSync(directory, { recursive: true });
});

test.each(
  cases.map((recorded) => [`${recorded.checkpoint} ${JSON.stringify(recorded.settings)}`, recorded] as const),
)("%s", async (_, recorded) => {
  const texts = (await decoders.generate(recorded)).flat();
  expect(texts.map(({ tokens }) => tokens)).toEqual(recorded.sequences);
  for (const [i, score] of (recorded.scores ?? []).entries())
    expect(Math.abs(texts[i]!.score! - score)).toBeLessThan(1e-4 * Math.max(1, Math.abs(score)));
});
