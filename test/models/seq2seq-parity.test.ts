import { seq2seqCases } from "./seq2seq-case.ts";
import { describeSeq2SeqParity } from "./seq2seq-parity.ts";

// Recorded by scripts/record_seq2seq.py: PyTorch, transformers and PEFT on tiny random checkpoints.
describeSeq2SeqParity(seq2seqCases());
