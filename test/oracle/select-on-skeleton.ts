import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { SelectionConfig } from "../../src/selection/index.ts";

/** What PEFT makes of one configuration: rank and alpha by name, or Python's exception. */
export type PeftAnswer =
  | { readonly targets: Readonly<Record<string, readonly [r: number, alpha: number]>> }
  | { readonly error: readonly [type: string, message: string] };

const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));

/** Lets PEFT select on the model that a skeleton of test/vectors was made from, in one run of Python. */
export function selectOnSkeleton(name: string, configs: readonly SelectionConfig[]): PeftAnswer[] {
  const python = process.env["GRAFT_PYTHON"];
  if (!python)
    throw new Error("GRAFT_PYTHON names no interpreter. Run these tests with: npm run test:oracle");
  const run = spawnSync(
    python,
    [path("../../scripts/select_on_skeleton.py"), path(`../vectors/skeletons/${name}.json.gz`)],
    {
      encoding: "utf8",
      input: JSON.stringify(configs.map(snakeCase)),
      env: { ...process.env, HF_HUB_OFFLINE: "1", PYTHONHASHSEED: "0", PYTHONDONTWRITEBYTECODE: "1" },
      maxBuffer: 2 ** 28,
    },
  );
  if (run.status !== 0)
    throw new Error(`select_on_skeleton.py failed: ${run.error?.message ?? run.stderr.trim()}`);
  return JSON.parse(run.stdout) as PeftAnswer[];
}

const snakeCase = (config: SelectionConfig): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(config).map(([field, value]) => [
      field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
      value,
    ]),
  );
