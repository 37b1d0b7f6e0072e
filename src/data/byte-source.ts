import { dataError } from "./problem.ts";
import type { ByteSource } from "./types.ts";

/** A file that the user picked in a browser, or any other Blob. */
export const blobSource = (name: string, blob: Blob): ByteSource => ({
  name,
  size: blob.size,
  read: async (start, end) => new Uint8Array(await blob.slice(start, end).arrayBuffer()),
});

/** Text that is already in memory. */
export function textSource(name: string, text: string): ByteSource {
  const bytes = new TextEncoder().encode(text);
  return { name, size: bytes.length, read: async (start, end) => bytes.subarray(start, end) };
}

/**
 * `source.read`, but a short answer is an error.
 * @throws DataError "file-changed"
 */
export async function readExactly(source: ByteSource, start: number, end: number): Promise<Uint8Array> {
  const bytes = await source.read(start, end);
  if (bytes.length !== end - start)
    throw dataError(
      "file-changed",
      { file: source.name },
      `expected ${end - start} bytes at offset ${start}, got ${bytes.length}. ` +
        "The file was shortened while it was being read; open it again.",
      { byteOffset: start },
    );
  return bytes;
}

/** Everything in a source, as bytes. */
export const readAll = (source: ByteSource): Promise<Uint8Array> => readExactly(source, 0, source.size);
