import { crc32c } from "../crc32c.ts";

/** Where an example lies in a data file, and the checksum of its bytes. */
export type Entry = {
  readonly key: string;
  readonly offset: number;
  readonly length: number;
  readonly crc: number;
};

/** The first line of an index; what starts otherwise is of another version and not read. */
export const INDEX_START = "graft prefix cache, version 1\n";

/** One line for an example: checksum of the rest of the line, offset, length, checksum of the data, key. */
export function indexLine({ key, offset, length, crc }: Entry): string {
  const text = `${offset} ${length} ${hex(crc)} ${encodeURIComponent(key)}`;
  return `${hex(checksum(text))} ${text}\n`;
}

/**
 * The examples of an index whose data file has `dataSize` bytes. Left out is what an interrupted or damaged write leaves: a
 * last line without its end, a line that its checksum does not fit, data that are not all there.
 */
export function parseIndex(index: string, dataSize: number): Entry[] {
  if (!index.startsWith(INDEX_START)) return [];
  const lines = index.slice(INDEX_START.length).split("\n").slice(0, -1);
  return lines.flatMap((line) => parseLine(line, dataSize) ?? []);
}

function parseLine(line: string, dataSize: number): Entry | undefined {
  const match = /^([0-9a-f]{8}) ((\d{1,16}) (\d{1,16}) ([0-9a-f]{8}) (\S+))$/.exec(line);
  if (!match || match[1] !== hex(checksum(match[2]!))) return undefined;
  const [offset, length, crc] = [Number(match[3]), Number(match[4]), Number.parseInt(match[5]!, 16)];
  return offset + length <= dataSize
    ? { key: decodeURIComponent(match[6]!), offset, length, crc }
    : undefined;
}

const hex = (crc: number): string => crc.toString(16).padStart(8, "0");
const checksum = (text: string): number => crc32c(new TextEncoder().encode(text));
