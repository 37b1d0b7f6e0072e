import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll } from "vitest";

/** Lets a recording script make random cases; returns their folder, which is removed after this file's tests. */
export function randomCases(script: string, count: number): string {
  const python = process.env.GRAFT_PYTHON;
  if (!python)
    throw new Error("GRAFT_PYTHON names no interpreter. Run these tests with: npm run test:oracle");
  const directory = mkdtempSync(join(tmpdir(), "graft-oracle-"));
  afterAll(() => rmSync(directory, { recursive: true, force: true }));
  const file = fileURLToPath(new URL(`../../scripts/${script}`, import.meta.url));
  const options = { out: directory, random: String(count), seed: process.env.GRAFT_ORACLE_SEED ?? "1" };
  const { status, error, stderr } = spawnSync(
    python,
    [file, ...Object.entries(options).flatMap(([name, value]) => [`--${name}`, value])],
    { encoding: "utf8", env: { ...process.env, HF_HUB_OFFLINE: "1" } },
  );
  if (status !== 0) throw new Error(`${script} failed: ${error?.message ?? stderr.trim()}`);
  return directory;
}
