import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { onTestFinished } from "vitest";
import { GraftError } from "../../src/errors.ts";
import { ReferenceCase, referenceCases } from "../support/reference-case.ts";

const models = fileURLToPath(new URL("../vectors/models", import.meta.url));

export const referenceCase = (name: string): ReferenceCase => new ReferenceCase(join(models, name));
export const everyCase = (): ReferenceCase[] => referenceCases(models);

/** A folder that is removed after the test. */
export async function temporaryFolder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "graft-adapter-"));
  onTestFinished(() => rm(path, { recursive: true, force: true }));
  return path;
}

/** The error of ours that a promise rejects with. */
export async function rejection(promise: Promise<unknown>): Promise<GraftError> {
  const error: unknown = await promise.then(
    () => new Error("nothing failed"),
    (error: unknown) => error,
  );
  if (error instanceof GraftError) return error;
  throw error;
}
