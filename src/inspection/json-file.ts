import { type ByteSource, bytesSource, type FileStore, readJson } from "../checkpoint/index.ts";
import { CheckpointError, isGraftError } from "../errors.ts";

/** A skeleton of a model with hundreds of thousands of modules has some 100 MB; a hostile file could unpack to anything. */
const maxUnpackedLength = 2 ** 29;

/** A JSON file of the store, unpacked if its name says so. */
export async function readJsonFile(
  store: FileStore,
  file: string,
  options: { signal?: AbortSignal } = {},
): Promise<unknown> {
  if (!/\.gz$/i.test(file)) return readJson(store, file, options);
  const packed = await store.open(file, options);
  if (packed === undefined) return readJson(store, file, options); // says what is missing
  const unpacked = await unpack(packed, options);
  try {
    return await readJson({ name: store.name, open: async () => unpacked }, file, options);
  } catch (cause) {
    throw isGraftError(cause) && cause.code !== "json-too-large" ? notPacked(packed.name, cause) : cause;
  }
}

async function unpack(packed: ByteSource, options: { signal?: AbortSignal }): Promise<ByteSource> {
  const { name, size } = packed;
  const bytes = await packed.read(0, size, options);
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")).getReader();
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  for (;;) {
    const { done, value } = await reader.read().catch((cause: unknown) => {
      throw notPacked(name, cause as Error);
    });
    if (done) break;
    length += value.length;
    if (length > maxUnpackedLength) {
      await reader.cancel();
      throw new CheckpointError(
        `${name}: unpacks to more than ${maxUnpackedLength} bytes, too many for a skeleton. Check where it comes from.`,
        { code: "json-too-large", details: { file: name, limit: maxUnpackedLength } },
      );
    }
    parts.push(value as Uint8Array<ArrayBuffer>);
  }
  return bytesSource(name, new Uint8Array(await new Blob(parts).arrayBuffer()));
}

const notPacked = (name: string, cause: Error): CheckpointError =>
  new CheckpointError(
    `${name}: not a gzip-compressed JSON file (${cause.message}). Write it again, or download it again.`,
    { code: "invalid-json", details: { file: name }, cause },
  );
