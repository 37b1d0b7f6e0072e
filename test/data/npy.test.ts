import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { checkNpy, readNpy } from "../../src/data/npy.ts";
import { openDataset } from "../../src/data/open-dataset.ts";
import { dataErrorOf } from "./support.ts";

const folder = fileURLToPath(new URL("../vectors/data/npy/", import.meta.url));
const expected = JSON.parse(readFileSync(new URL("../vectors/data/npy.json", import.meta.url), "utf8")) as {
  shape: number[];
  values: number[];
};
const temporary = mkdtempSync(join(tmpdir(), "graft-npy-"));
afterAll(() => rmSync(temporary, { recursive: true, force: true }));

const place = { file: "rows.jsonl", line: 7 };
const bits = (values: Float32Array): number[] => [
  ...new Uint32Array(values.buffer, values.byteOffset, values.length),
];

test.each(["good", "version-2"])("%s.npy, bit by bit", async (name) => {
  const { shape, data, dtype } = await readNpy(join(folder, `${name}.npy`), place);
  expect({ shape, dtype }).toEqual({ shape: expected.shape, dtype: "float32" });
  expect(bits(data)).toEqual(bits(Float32Array.from(expected.values)));
});

const good = new Uint8Array(readFileSync(join(folder, "good.npy")));
const written = (name: string, bytes: Uint8Array): string => {
  const path = join(temporary, name);
  writeFileSync(path, bytes);
  return path;
};
/** good.npy with another header of the same length. */
const withHeader = (from: string, to: string): Uint8Array => {
  const bytes = good.slice();
  const text = new TextDecoder("latin1").decode(bytes.subarray(0, 128)).replace(from, to);
  bytes.set(new TextEncoder().encode(text.slice(10, 128).padEnd(118)), 10);
  return bytes;
};

describe("refused", () => {
  test.each([
    ["float16.npy", 'holds values of type "<f2". Save it as little-endian float32'],
    ["float64.npy", 'holds values of type "<f8"'],
    ["big-endian.npy", 'holds values of type ">f4"'],
    ["bytes.npy", 'holds values of type "|u1"'],
    ["fields.npy", "does not hold plain numbers"],
    ["fortran.npy", "is stored column by column (Fortran order). Save numpy.ascontiguousarray(array)."],
    [
      "batch.npy",
      "has the shape [1, 3, 4, 5]. It must hold one picture, [3, height, width]: save pixel_values[0].",
    ],
    ["flat.npy", "has the shape [60]. It must be [3, height, width], none of them 0."],
    ["channels-last.npy", "has the shape [4, 5, 3]. It must be [3, height, width]"],
    ["empty-edge.npy", "has the shape [3, 0, 5]"],
    ["scalar.npy", "has the shape []"],
    ["archive.npz", "is a .npz archive, or another zip file. Save one array with numpy.save."],
  ])("%s", async (name, message) => {
    const path = join(folder, name);
    for (const run of [readNpy, checkNpy]) {
      const error = await dataErrorOf(() => run(path, place));
      expect(error.code).toBe("bad-npy");
      expect(error.message).toContain(`rows.jsonl:7: ${path}: the file ${message}`);
      expect(error.details).toMatchObject({ line: 7, array: path });
    }
  });

  test.each([
    ["empty", new Uint8Array(0), "the file is empty"],
    ["text", new TextEncoder().encode("0.5 0.5 0.5 0.5"), "the file is not a NumPy array"],
    ["magic alone", good.subarray(0, 8), "the file is cut off in its header"],
    ["half a header", good.subarray(0, 60), "the file is cut off in its header"],
    ["version 9", good.map((byte, i) => (i === 6 ? 9 : byte)), "the unknown format version 9.0"],
    ["cut off", good.subarray(0, -1), "has 367 bytes where the shape [3, 4, 5] takes 368. It is cut off."],
    ["header alone", good.subarray(0, 128), "has 128 bytes where the shape [3, 4, 5] takes 368"],
    [
      "longer",
      new Uint8Array([...good, 0]),
      "has 369 bytes where the shape [3, 4, 5] takes 368. Save one array alone",
    ],
    ["a huge shape", withHeader("(3, 4, 5)", "(3, 99999999, 99999999)"), "the shape [3, 99999999, 99999999]"],
    ["a negative shape", withHeader("(3, 4, 5)", "(3, -4, -5)"), "has the shape [3, -4, -5]"],
    ["a fractional shape", withHeader("(3, 4, 5)", "(3, 2.5, 8)"), "has the shape [3, 2.5, 8]"],
  ])("%s", async (name, bytes, message) => {
    const path = written(`${name}.npy`, bytes);
    for (const run of [readNpy, checkNpy]) {
      const error = await dataErrorOf(() => run(path, place));
      expect(error.code).toBe("bad-npy");
      expect(error.message).toContain(message);
    }
  });

  test("values that are not finite, with their place", async () => {
    const path = join(folder, "nan.npy");
    await checkNpy(path, place);
    const error = await dataErrorOf(() => readNpy(path, place));
    expect(error.message).toBe(
      `rows.jsonl:7: ${path}: the file holds NaN at [1, 2, 3], byte ${128 + 4 * 33}. Pixel values must be finite: process the picture again.`,
    );
  });

  test("no file, a directory, an address", async () => {
    const missing = await dataErrorOf(() => checkNpy(join(temporary, "none.npy"), place));
    expect(missing.code).toBe("unreadable");
    expect(missing.message).toBe(
      `rows.jsonl:7: ${join(temporary, "none.npy")}: there is no such file. Check the path.`,
    );
    expect((await dataErrorOf(() => readNpy(temporary, place))).message).toContain("is a directory");
    expect((await dataErrorOf(() => readNpy("https://x.org/a.npy", place))).message).toContain(
      "is an address",
    );
  });

  test("any damage is an error that names the file, or leaves numbers of the same shape", async () => {
    let run = 0;
    await fc.assert(
      fc.asyncProperty(fc.nat(127), fc.nat(255), fc.nat(good.length), async (at, byte, end) => {
        const bytes = good.slice(0, Math.max(end, 1));
        if (at < bytes.length) bytes[at] = byte;
        const path = written(`damaged-${run++}.npy`, bytes);
        try {
          const { shape, data } = await readNpy(path, place);
          expect(data.length).toBe(shape.reduce((product, edge) => product * edge, 1));
          expect(data.every(Number.isFinite)).toBe(true);
        } catch (error) {
          expect(error).toMatchObject({ name: "DataError", code: "bad-npy" });
          expect((error as Error).message).toContain(`rows.jsonl:7: ${path}: `);
        }
      }),
      { numRuns: 150 },
    );
  });
});

test("rows of processed pictures: the file beside the data file, ids and labels as they are", async () => {
  const rows = join(temporary, "rows.jsonl");
  written("picture.npy", good);
  const row = { pixel_values_file: "picture.npy", input_ids: [63, 63, 0, 5, 2], labels: [-100, 7, 2] };
  writeFileSync(rows, `${JSON.stringify(row)}\n`);
  const dataset = await openDataset(rows, { architecture: "encoder-decoder", validate: true, vocabSize: 64 });
  const example = await dataset.get(0);
  expect(example).toMatchObject({ inputIds: row.input_ids, labels: row.labels, file: rows, line: 1 });
  expect(bits(example.pixelValues!.data)).toEqual(bits(Float32Array.from(expected.values)));
  expect(dataset.stats).toMatchObject({ examples: 1, tokens: 5, labelTokens: 2 });
  await dataset.close?.();
});

test("validate names every bad array with its line; rows are not cut", async () => {
  const rows = join(temporary, "bad.jsonl");
  const row = { pixel_values_file: join(folder, "good.npy"), input_ids: [1, 2, 3], labels: [1] };
  const lines = [
    row,
    { ...row, pixel_values_file: "none.npy" },
    { ...row, pixel_values_file: join(folder, "flat.npy") },
  ];
  writeFileSync(rows, lines.map((line) => JSON.stringify(line)).join("\n"));
  const options = { architecture: "encoder-decoder", validate: true } as const;
  const error = await dataErrorOf(() => openDataset(rows, options));
  expect(error.code).toBe("bad-rows");
  expect(error.message).toContain(`${rows}:2: ${join(temporary, "none.npy")}: there is no such file`);
  expect(error.message).toContain(`${rows}:3: ${join(folder, "flat.npy")}: the file has the shape [60]`);

  writeFileSync(rows, JSON.stringify(row));
  const dataset = await openDataset(rows, { ...options, maxLength: 2 });
  const cut = await dataErrorOf(() => dataset.get(0));
  await dataset.close?.();
  expect(cut.message).toContain(
    `${rows}:1: "input_ids" has 3 values, more than maxLength's 2. Rows with processed pictures are not cut`,
  );
});
