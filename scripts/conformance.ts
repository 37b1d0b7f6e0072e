/**
 * Runs every vector file (*.json.gz) below a folder, recorded selections and recorded regex matches alike, and prints
 * one JSON document {total, passed, failed, failures}; exit status 1 if anything failed.
 *
 *     npm run conformance -- DIR
 */
import { relative } from "node:path";
import { type RegexVector, runRegexVector } from "../test/conformance/regex-vectors.ts";
import {
  type Mismatch,
  runSelectionVector,
  type SelectionVectorFile,
} from "../test/conformance/selection-vectors.ts";
import { findSkeleton, readVectors, vectorFiles } from "../test/conformance/vector-files.ts";

const listLimit = 50;

const folder = process.argv[2];
if (folder === undefined) {
  console.error("usage: npm run conformance -- DIR");
  process.exit(2);
}

type Failed = { file: string; id: string; cat?: string } & Mismatch;
const failed: Failed[] = [];
let total = 0;
let failures = 0;

function record(file: string, id: string, cat: string, run: () => Mismatch | undefined): void {
  total++;
  let mismatch: Mismatch | undefined;
  try {
    mismatch = run();
  } catch (error) {
    mismatch = {
      expected: null,
      actual: error instanceof Error ? (error.stack ?? error.message) : String(error),
    };
  }
  if (mismatch === undefined) return;
  failures++;
  if (failed.length < listLimit) failed.push({ file, id, cat, ...mismatch });
}

for (const path of vectorFiles(folder)) {
  const document = readVectors(path) as Partial<SelectionVectorFile> & { vectors?: unknown[] };
  if (!Array.isArray(document.vectors)) continue;
  const file = relative(folder, path);
  if (document.skeleton !== undefined) {
    const tree = findSkeleton(document.skeleton, path);
    for (const vector of document.vectors as SelectionVectorFile["vectors"])
      record(file, vector.id, vector.cat, () => runSelectionVector(tree, vector));
  } else
    (document.vectors as RegexVector[]).forEach((vector, i) => {
      record(file, String(i), vector.cat, () => runRegexVector(vector));
    });
}

console.log(JSON.stringify({ total, passed: total - failures, failed, failures }, null, 1));
process.exitCode = failures === 0 ? 0 : 1;
