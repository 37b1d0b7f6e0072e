import { describeParity } from "../support/parity.ts";
import { referenceCases } from "../support/reference-case.ts";

/** Random checkpoints, adapters and data, made by scripts/oracle.py for this run. */
const directory = process.env.GRAFT_ORACLE_DIR;
if (!directory)
  throw new Error("GRAFT_ORACLE_DIR names no folder of cases. Run these tests with: npm run test:oracle");

describeParity(referenceCases(directory));
