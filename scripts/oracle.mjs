// npm run test:oracle [-- --seed N --cases K …vitest arguments]
//
// Finds a Python with torch, transformers and PEFT, lets it make random cases, and runs test/oracle on them.
//   GRAFT_PYTHON     the interpreter to use; otherwise .venv-reference, which is made if it is missing
//   GRAFT_ORACLE     "required": no Python is a failure, not a reason to skip
// The tests get GRAFT_PYTHON, GRAFT_ORACLE_SEED and GRAFT_ORACLE_DIR, the folder of the cases (format:
// scripts/record_models.py).

import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = resolve(fileURLToPath(new URL("..", import.meta.url)));
const scripts = join(root, "scripts");
const NEEDED = "torch, transformers, peft, safetensors";

/** Why this interpreter will not do, or undefined where it will. */
function shortcoming(python) {
  const probe = spawnSync(python, ["-c", `import ${NEEDED}`], { encoding: "utf8" });
  if (probe.error) return `cannot start ${python}: ${probe.error.message}`;
  if (probe.status === 0) return undefined;
  const lastLine = probe.stderr.trim().split("\n").at(-1);
  return `${python} cannot import ${NEEDED}: ${lastLine}`;
}

/** { python } or { reason }. An interpreter that was named explicitly is never replaced by another. */
function findPython() {
  const named = process.env.GRAFT_PYTHON;
  if (named) {
    const reason = shortcoming(named);
    return reason ? { reason: `GRAFT_PYTHON: ${reason}` } : { python: named };
  }
  const venv = join(root, ".venv-reference");
  const python = join(venv, "bin", "python");
  if (existsSync(python) && !shortcoming(python)) return { python };
  console.error(`making ${venv} (torch, transformers, PEFT)…`);
  const make = (...extra) =>
    spawnSync("bash", [join(scripts, "reference-venv.sh"), venv, ...extra], {
      stdio: ["ignore", "ignore", "inherit"],
    });
  let made = make("pillow"); // for tests with pictures, which are skipped without
  if (made.status !== 0 && !made.error) made = make();
  if (made.error) return { reason: `cannot run reference-venv.sh: ${made.error.message}` };
  if (made.status !== 0) return { reason: `reference-venv.sh failed (exit ${made.status})` };
  const reason = shortcoming(python);
  return reason ? { reason } : { python };
}

function main() {
  const { values, tokens } = parseArgs({
    options: { seed: { type: "string", default: "1" }, cases: { type: "string", default: "4" } },
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const known = new Set(["seed", "cases"]);
  const taken = new Set();
  for (const token of tokens) {
    if (token.kind !== "option" || !known.has(token.name)) continue;
    taken.add(token.index);
    if (!token.inlineValue) taken.add(token.index + 1);
  }
  const forVitest = process.argv.slice(2).filter((_, index) => !taken.has(index));

  const { python, reason } = findPython();
  if (!python) {
    console.log(`oracle skipped: ${reason}`);
    return process.env.GRAFT_ORACLE === "required" ? 1 : 0;
  }

  const directory = mkdtempSync(join(tmpdir(), "graft-oracle-"));
  try {
    const env = {
      ...process.env,
      GRAFT_PYTHON: python,
      GRAFT_ORACLE_DIR: directory,
      GRAFT_ORACLE_SEED: values.seed,
      HF_HUB_OFFLINE: "1",
    };
    console.error(`oracle: ${python}, seed ${values.seed}, ${values.cases} cases`);
    const generated = spawnSync(
      python,
      [join(scripts, "oracle.py"), "--out", directory, "--seed", values.seed, "--cases", values.cases],
      { env, stdio: ["ignore", "inherit", "inherit"] },
    );
    // Python is there but cannot make cases: that is a fault here, not a missing tool.
    if (generated.status !== 0) return 1;
    const vitest = join(root, "node_modules", "vitest", "vitest.mjs");
    const args = [vitest, "run", "--config", "vitest.oracle.config.ts", ...forVitest];
    return spawnSync(process.execPath, args, { cwd: root, env, stdio: "inherit" }).status ?? 1;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

process.exitCode = main();
