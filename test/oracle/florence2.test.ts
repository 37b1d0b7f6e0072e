import { describe } from "vitest";
import { florence2Cases } from "../models/florence2-case.ts";
import { describeFlorence2Parity } from "../models/florence2-parity.ts";
import { seq2seqCases } from "../models/seq2seq-case.ts";
import { describeSeq2SeqParity } from "../models/seq2seq-parity.ts";
import { randomCases } from "./random-cases.ts";

// Random checkpoints, adapters, pictures and prompts, made and computed by Python for this run.
describe("Florence-2", () => {
  describeFlorence2Parity(florence2Cases(randomCases("record_florence2.py", 3)));
});

describe("BART", () => {
  describeSeq2SeqParity(seq2seqCases(randomCases("record_seq2seq.py", 3)));
});
