import { florence2Cases } from "./florence2-case.ts";
import { describeFlorence2Parity } from "./florence2-parity.ts";

// Recorded by scripts/record_florence2.py: PyTorch, transformers and PEFT on tiny random checkpoints.
describeFlorence2Parity(florence2Cases());
