import { CheckpointError } from "../errors.ts";

export type ReadOptions = { readonly signal?: AbortSignal };

/** Bytes that can be read in pieces: a file, a Blob, a URL. */
export type ByteSource = {
  /** As the user spelled it; error messages start with it. */
  readonly name: string;
  /** In bytes. */
  readonly size: number;
  /** Absolute local path, where there is one. */
  readonly path?: string;
  /**
   * Exactly the bytes from `start` up to, not including, `end`, in a buffer that holds nothing else.
   * @throws CheckpointError if they cannot be had; the signal's reason if aborted.
   */
  read(start: number, end: number, options?: ReadOptions): Promise<Uint8Array<ArrayBuffer>>;
};

/** A flat set of named files: a directory, a URL prefix, files picked in a browser. */
export type FileStore = {
  /** As the user spelled it. */
  readonly name: string;
  /** Absolute path of the directory, where there is one. */
  readonly path?: string;
  /** Set where the location named one weights file (or shard index) rather than a directory. */
  readonly weights?: string;
  /** The file, or undefined if there is none. @throws CheckpointError if there is one that cannot be read. */
  open(file: string, options?: ReadOptions): Promise<ByteSource | undefined>;
  /** Names of the files, where the store can tell. */
  list?(): Promise<string[]>;
};

/** Bytes in memory as a source. Reads copy, so that a tensor never shares memory with its file. */
export function bytesSource(name: string, bytes: Uint8Array): ByteSource {
  return {
    name,
    size: bytes.length,
    async read(start, end, { signal } = {}) {
      signal?.throwIfAborted();
      checkRange(name, bytes.length, start, end);
      return bytes.slice(start, end);
    },
  };
}

/** A Blob (or a File, as an `<input type="file">` gives it) as a source. */
export function blobSource(name: string, blob: Blob): ByteSource {
  return {
    name,
    size: blob.size,
    async read(start, end, { signal } = {}) {
      signal?.throwIfAborted();
      checkRange(name, blob.size, start, end);
      let bytes: Uint8Array<ArrayBuffer>;
      try {
        bytes = new Uint8Array(await blob.slice(start, end).arrayBuffer());
      } catch (cause) {
        // Browsers refuse a File whose contents changed on disk since it was picked.
        throw new CheckpointError(
          `${name}: the browser cannot read bytes ${start} to ${end} of the file (${String(cause)}). ` +
            "Choose the file again; it may have been moved or changed.",
          { code: "unreadable", details: { file: name, start, end }, cause },
        );
      }
      signal?.throwIfAborted();
      checkLength(name, start, end, bytes.length);
      return bytes;
    },
  };
}

/** @throws CheckpointError unless 0 ≤ start ≤ end ≤ size. */
export function checkRange(name: string, size: number, start: number, end: number): void {
  if (Number.isSafeInteger(start) && Number.isSafeInteger(end) && 0 <= start && start <= end && end <= size)
    return;
  throw new CheckpointError(`${name}: cannot read bytes ${start} to ${end} of a file of ${size} bytes.`, {
    code: "out-of-range",
    details: { file: name, size, start, end },
  });
}

/** @throws CheckpointError if a read of start..end gave another number of bytes. */
export function checkLength(name: string, start: number, end: number, length: number): void {
  if (length === end - start) return;
  throw new CheckpointError(
    `${name}: asked for bytes ${start} to ${end} (${end - start}), got ${length}. ` +
      "The file was cut short or changed while it was being read; try again.",
    { code: "short-read", details: { file: name, start, end, length } },
  );
}
