import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { textSource } from "../../src/data/byte-source.ts";
import { LineIndex } from "../../src/data/line-index.ts";
import { countingSource, dataErrorOf } from "./support.ts";

/** The specification: split at LF, drop a final CR, skip blank lines but count them. */
function naiveLines(text: string): { number: number; text: string }[] {
  const withoutBom = text.startsWith("\ufeff") ? text.slice(1) : text;
  return withoutBom
    .split("\n")
    .map((line, i) => ({ number: i + 1, text: line.endsWith("\r") ? line.slice(0, -1) : line }))
    .filter(({ text: line }) => !/^[ \t\r]*$/.test(line));
}

async function readAll(index: LineIndex): Promise<{ number: number; text: string }[]> {
  const lines = [];
  for (let i = 0; i < index.length; i++)
    lines.push({ number: index.lineNumber(i), text: await index.line(i) });
  return lines;
}

const fragment = fc.constantFrom(
  "a",
  "{}",
  "é",
  "日本",
  "🎉",
  "\n",
  "\r\n",
  "\n\n",
  " ",
  "\t",
  "\r",
  "\ufeff",
  "x y",
);

describe("LineIndex", () => {
  test("is the naive split for any content and any chunk size, in any order", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fragment, { maxLength: 40 }),
        fc.integer({ min: 1, max: 9 }),
        async (parts, chunkBytes) => {
          const text = parts.join("");
          const index = await LineIndex.build(textSource("t", text), { chunkBytes });
          const expected = naiveLines(text);
          expect(await readAll(index)).toEqual(expected);
          for (let i = expected.length - 1; i >= 0; i--) expect(await index.line(i)).toBe(expected[i]!.text);
        },
      ),
      { numRuns: 500 },
    );
  });

  test("reads sequentially in windows, not line by line, also concurrently", async () => {
    const lines = Array.from({ length: 20_000 }, (_, i) => `{"text": "row number ${i}"}`);
    const source = countingSource("big", new TextEncoder().encode(lines.join("\n")));
    const index = await LineIndex.build(source);
    source.reads.length = 0;
    expect(await Promise.all(lines.map((_, i) => index.line(i)))).toEqual(lines);
    // 0.6 MB in windows of 256 KiB.
    expect(source.reads.length).toBeLessThan(6);
    source.reads.length = 0;
    expect(await index.line(3)).toBe(lines[3]);
    expect(await index.line(15_000)).toBe(lines[15_000]);
    for (const [start, end] of source.reads) expect(end - start).toBeLessThan(100);
  });

  test("a line that is too long is an error with its number", async () => {
    const source = textSource("rows.jsonl", `short\n${"x".repeat(100)}\nshort`);
    for (const chunkBytes of [8, 1 << 20]) {
      const error = await dataErrorOf(() => LineIndex.build(source, { maxLineBytes: 99, chunkBytes }));
      expect(error.code).toBe("line-too-long");
      expect(error.message).toMatch(/^rows\.jsonl:2: the line is longer than 99 bytes\./);
    }
    expect((await LineIndex.build(source, { maxLineBytes: 100 })).length).toBe(3);
  });

  test.each([
    ["caf\\xe9", [0x63, 0x61, 0x66, 0xe9], "E9", 6],
    ["caf\\xe9 au lait", [0x63, 0x61, 0x66, 0xe9, 0x20, 0x61], "E9", 6],
    ["\\xff", [0xff], "FF", 3],
    ["é\\x80", [0xc3, 0xa9, 0x80], "80", 5],
  ])("bytes that are not UTF-8 are named by line and offset: %s", async (_, line, hex, offset) => {
    const bytes = Uint8Array.from([...new TextEncoder().encode("ok\n"), ...line, 0x0a]);
    const index = await LineIndex.build(countingSource("rows.jsonl", bytes));
    const error = await dataErrorOf(() => index.line(1));
    expect(error.code).toBe("not-utf8");
    expect(error.message).toContain(
      `rows.jsonl:2: byte 0x${hex} at offset ${offset} is not valid UTF-8. Save the file as UTF-8`,
    );
    expect(error.details).toMatchObject({ file: "rows.jsonl", line: 2, byteOffset: offset });
  });

  test.each([
    ["utf-16", [0xff, 0xfe, 0x7b, 0x00]],
    ["compressed", [0x1f, 0x8b, 0x08, 0x00]],
    ["parquet", [0x50, 0x41, 0x52, 0x31]],
  ])("%s content is refused", async (code, bytes) => {
    const error = await dataErrorOf(() =>
      LineIndex.build(countingSource("rows.jsonl", Uint8Array.from(bytes))),
    );
    expect(error.code).toBe(code);
  });

  test("a file that shrinks while it is read is an error", async () => {
    const source = countingSource("rows.jsonl", new TextEncoder().encode("a\nb\n"));
    const error = await dataErrorOf(() => LineIndex.build({ ...source, size: 10 }));
    expect(error.code).toBe("file-changed");
  });

  test("a failed read is not kept", async () => {
    const source = countingSource("rows.jsonl", new TextEncoder().encode("a\nb\n"));
    const index = await LineIndex.build(source);
    const read = source.read;
    source.read = async () => Promise.reject(new Error("disk"));
    await expect(index.line(0)).rejects.toThrow("disk");
    source.read = read;
    expect(await index.line(0)).toBe("a");
  });

  test("stops when aborted", async () => {
    const signal = AbortSignal.abort();
    await expect(LineIndex.build(textSource("t", "a\nb"), { signal })).rejects.toThrow(/abort/i);
  });
});
