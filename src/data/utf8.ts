import { dataError, type Place } from "./problem.ts";

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * Bytes as text.
 * @throws DataError "not-utf8" that names the first bad byte; `byteOffset` is where `bytes` begin in the file.
 */
export function decodeUtf8(bytes: Uint8Array, place: Place, byteOffset = 0): string {
  try {
    return strict.decode(bytes);
  } catch (cause) {
    const at = firstInvalidByte(bytes);
    const hex = bytes[at]!.toString(16).padStart(2, "0").toUpperCase();
    throw dataError(
      "not-utf8",
      place,
      `byte 0x${hex} at offset ${byteOffset + at} is not valid UTF-8. ` +
        "Save the file as UTF-8 (iconv -f latin1 -t utf-8, if it is Latin-1).",
      { byteOffset: byteOffset + at },
      cause,
    );
  }
}

/** Offset of the first byte that makes `bytes` invalid; the bytes are known to be invalid. */
function firstInvalidByte(bytes: Uint8Array): number {
  // A streaming decoder accepts a prefix exactly if it ends before the first bad byte: search for the longest.
  let valid = 0;
  let invalid = bytes.length + 1;
  while (invalid - valid > 1) {
    const middle = (valid + invalid) >> 1;
    try {
      new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(0, middle), { stream: true });
      valid = middle;
    } catch {
      invalid = middle;
    }
  }
  // The bad byte may be the one that a character before it lacks: name that character.
  return Math.min(completeCharacters(bytes.subarray(0, valid)), bytes.length - 1);
}

/** Length of the longest prefix that does not end inside a character. */
export function completeCharacters(bytes: Uint8Array): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back]!;
    if (byte < 0x80) return bytes.length;
    if (byte >= 0xc0) {
      const needed = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
      return needed > back ? bytes.length - back : bytes.length;
    }
  }
  return bytes.length;
}

/** Signatures of files that are often given by mistake. */
const notText: readonly [signature: readonly number[], code: string, what: string, remedy: string][] = [
  [[0xff, 0xfe], "utf-16", "is UTF-16", "Save it as UTF-8 (iconv -f utf-16 -t utf-8)."],
  [[0xfe, 0xff], "utf-16", "is UTF-16", "Save it as UTF-8 (iconv -f utf-16 -t utf-8)."],
  [[0x1f, 0x8b], "compressed", "is compressed with gzip", "Decompress it first (gunzip)."],
  [[0x28, 0xb5, 0x2f, 0xfd], "compressed", "is compressed with zstd", "Decompress it first (unzstd)."],
  [[0x50, 0x4b, 0x03, 0x04], "compressed", "is a zip archive", "Unpack it first."],
  [
    [0x50, 0x41, 0x52, 0x31],
    "parquet",
    "is a Parquet file",
    "Export it as JSONL (Dataset.to_json in Python's datasets).",
  ],
];

/**
 * Length of the byte order mark at the start of a file, 0 or 3.
 * @throws DataError if the first bytes show that the file is not UTF-8 text.
 */
export function checkTextStart(head: Uint8Array, place: Place): number {
  for (const [signature, code, what, remedy] of notText)
    if (signature.every((byte, i) => head[i] === byte))
      throw dataError(code, place, `the file ${what}. ${remedy}`);
  return head[0] === 0xef && head[1] === 0xbb && head[2] === 0xbf ? 3 : 0;
}
