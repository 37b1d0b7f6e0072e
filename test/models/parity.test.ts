import { fileURLToPath } from "node:url";
import { describeParity } from "../support/parity.ts";
import { referenceCases } from "../support/reference-case.ts";

// Recorded by scripts/record_models.py: PyTorch, transformers and PEFT on tiny random checkpoints.
describeParity(referenceCases(fileURLToPath(new URL("../vectors/models", import.meta.url))));
