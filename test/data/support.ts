import { textSource } from "../../src/data/byte-source.ts";
import { AutoTokenizer, type Tokenizer } from "../../src/data/tokenizer.ts";
import type { ByteSource, FileStore } from "../../src/data/types.ts";
import { DataError } from "../../src/errors.ts";

/** A tokenizer of test/vectors/tokenizers. */
export const vectorTokenizer = (name: string): Promise<Tokenizer> =>
  AutoTokenizer.fromPretrained(new URL(`../vectors/tokenizers/${name}`, import.meta.url).pathname);

/** A directory in memory. */
export const memoryStore = (files: Record<string, string | object>, name = "model"): FileStore => ({
  name,
  open: async (file) => {
    const content = files[file];
    if (content === undefined) return undefined;
    return textSource(file, typeof content === "string" ? content : JSON.stringify(content));
  },
});

/** Bytes in memory that count how they are read. */
export function countingSource(
  name: string,
  content: Uint8Array,
): ByteSource & { reads: [number, number][] } {
  const reads: [number, number][] = [];
  return {
    name,
    size: content.length,
    reads,
    async read(start, end) {
      reads.push([start, end]);
      return content.slice(start, end);
    },
  };
}

/** The DataError that `run` throws; fails if it throws nothing or something else. */
export async function dataErrorOf(run: () => unknown): Promise<DataError> {
  try {
    await run();
  } catch (error) {
    if (error instanceof DataError) return error;
    throw error;
  }
  throw new Error("expected a DataError, nothing was thrown");
}
