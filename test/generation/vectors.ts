import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";

/** What scripts/record_generation.py recorded. */
type Vectors = {
  inputs: number[][];
  processors: ({ name: string; args: (number | number[])[]; ids: number[]; input: number } & Outcome)[];
  chains: ({ file: object; promptLength: number; ids: number[]; input: number; names: string[] } & Outcome)[];
  tokenizers: { name: string; json: object; samples: { text: string; ids: number[] }[] }[];
};

/** Scores as 32-bit patterns, or which of the input's scores stay. */
export type Outcome = { output?: number[]; kept?: number[] };

export const vectors: Vectors = JSON.parse(
  gunzipSync(readFileSync(new URL("../vectors/generation.json.gz", import.meta.url))).toString(),
);

export const inputScores = (index: number): Float32Array =>
  new Float32Array(Uint32Array.from(vectors.inputs[index]!).buffer);

export const toBits = (scores: Float32Array): number[] => [...new Uint32Array(scores.buffer)];

/** What an outcome says the scores are, as 32-bit patterns. */
export function outcomeBits({ output, kept }: Outcome, input: Float32Array): number[] {
  if (output) return output;
  const scores = new Float32Array(input.length).fill(-Infinity);
  for (const id of kept!) scores[id] = input[id]!;
  return toBits(scores);
}
