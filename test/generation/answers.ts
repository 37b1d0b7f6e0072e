import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll } from "vitest";

const vectors = fileURLToPath(new URL("../vectors", import.meta.url));

/** What scripts/record_generation_seq2seq.py --answers writes; see there. */
export type RecordedAnswer = {
  image: string;
  prompt: string;
  settings: Record<string, number>;
  /** Width and height. */
  size: [number, number];
  inputIds: number[];
  tokens: number[];
  /** All that was generated, special tokens included. */
  generated: string;
  parsed: unknown;
};

export const recordedAnswers = (): RecordedAnswer[] =>
  (
    JSON.parse(readFileSync(join(vectors, "generation-seq2seq/answers/answers.json"), "utf8")) as {
      answers: RecordedAnswer[];
    }
  ).answers;

export const pictureFile = (name: string): string => join(vectors, "processing/images", name);

/** The tiny Florence-2 with its processor, in a folder of its own that goes after the file's tests. */
export function answeringModel({ processor = true } = {}): string {
  const directory = mkdtempSync(join(tmpdir(), "graft-florence2-"));
  afterAll(() => rmSync(directory, { recursive: true, force: true }));
  const parts = ["generation-seq2seq/answers/model", ...(processor ? ["processing/current"] : [])];
  for (const part of parts)
    for (const file of readdirSync(join(vectors, part)))
      copyFileSync(join(vectors, part, file), join(directory, file));
  return directory;
}

/** Text for people: what was generated, without what marks its beginning and end. */
export const shownText = ({ generated }: RecordedAnswer): string => generated.replace(/<s>|<\/s>|<pad>/g, "");
