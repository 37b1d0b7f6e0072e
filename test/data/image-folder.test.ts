import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { expandPaths } from "../../src/data/node.ts";
import { openDataset } from "../../src/data/open-dataset.ts";
import { createRowProcessor, Florence2Processor, readImage } from "../../src/processing/index.ts";
import { dataErrorOf } from "./support.ts";

const vectors = fileURLToPath(new URL("../vectors/", import.meta.url));
const root = mkdtempSync(join(tmpdir(), "graft-folder-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** A directory with these files, by their content. */
function folder(name: string, files: Record<string, string>): string {
  for (const [file, content] of Object.entries(files)) {
    mkdirSync(dirname(join(root, name, file)), { recursive: true });
    writeFileSync(join(root, name, file), content);
  }
  return join(root, name);
}
const rows = '{"file_name": "a.png", "text": "x"}\n';

describe("a folder of pictures", () => {
  test.each<[string, Record<string, string>, string[]]>([
    ["metadata beside pictures", { "metadata.jsonl": rows, "a.png": "" }, ["metadata.jsonl"]],
    [
      "texts beside pictures",
      { "metadata.jsonl": rows, "a.png": "", "a.txt": "", "README.md": "" },
      ["metadata.jsonl"],
    ],
    ["pictures in folders", { "metadata.jsonl": rows, "train/a.png": "" }, ["metadata.jsonl"]],
    [
      "one part",
      { "train/metadata.jsonl": rows, "train/a.png": "", "README.md": "" },
      ["train/metadata.jsonl"],
    ],
    ["parquet metadata", { "metadata.parquet": "PAR1", "a.png": "" }, ["metadata.parquet"]],
    [
      "other rows beside it",
      { "metadata.jsonl": rows, "train.jsonl": rows },
      ["metadata.jsonl", "train.jsonl"],
    ],
    [
      "shards of one split",
      { "train-00000-of-00002.parquet": "", "train-00001-of-00002-0a1b2c3d.parquet": "" },
      ["train-00000-of-00002.parquet", "train-00001-of-00002-0a1b2c3d.parquet"],
    ],
  ])("%s", async (name, files, expected) => {
    const path = folder(name, files);
    expect(await expandPaths([path])).toEqual(expected.map((file) => join(path, file)));
  });

  test.each<[string, Record<string, string>, string, RegExp]>([
    [
      "no metadata",
      { "a.png": "" },
      "no-files",
      /Its pictures need a metadata\.jsonl beside them, with a line for each/,
    ],
    [
      "csv",
      { "metadata.csv": "", "a.png": "" },
      "metadata",
      /as metadata\.csv, which cannot be read\. Convert it to metadata\.jsonl/,
    ],
    [
      "csv of a part",
      { "train/metadata.csv": "" },
      "metadata",
      /train: the folder of pictures has its metadata as/,
    ],
    [
      "two kinds",
      { "metadata.csv": "", "metadata.jsonl": rows },
      "metadata",
      /has metadata\.csv and metadata\.jsonl, which may differ\. Keep one/,
    ],
    [
      "two parts",
      { "train/metadata.jsonl": rows, "test/metadata.jsonl": rows },
      "several-splits",
      /has several parts \(test, train\), which are not to be mixed\. Name one: .*two parts\/test or .*two parts\/train\.$/,
    ],
    [
      "two splits",
      { "train-00000-of-00001.parquet": "", "test-00000-of-00001.parquet": "" },
      "several-splits",
      /Name one: .*test-\*\.parquet or .*train-\*\.parquet\.$/,
    ],
    [
      "nothing",
      { "README.md": "" },
      "no-files",
      /has no \.jsonl, \.json or \.txt file, nor \.parquet\. Name the files\.$/,
    ],
  ])("refused: %s", async (name, files, code, message) => {
    const path = folder(name, files);
    const error = await dataErrorOf(() => expandPaths([path]));
    expect(error.code).toBe(code);
    expect(error.message.startsWith(path), error.message).toBe(true);
    expect(error.message).toMatch(message);
  });

  test("is read as it lies there", async () => {
    const path = folder("real", {
      "train/metadata.jsonl":
        '{"file_name": "sub/rgb.png", "text": "a square"}\n\n{"file_name": "gone.png", "text": "b"}\n',
    });
    cpSync(join(vectors, "processing/images/rgb.png"), join(path, "train/sub/rgb.png"));
    const florence2 = await Florence2Processor.fromPretrained(join(vectors, "processing/current"));
    const processor = createRowProcessor(florence2);
    const options = { architecture: "encoder-decoder", processor, prompt: "<CAPTION>" } as const;
    const dataset = await openDataset(path, options);
    const { pixelValues, labels } = await dataset.get(0);
    expect(labels).toEqual(florence2.tokenizer.encode("a square"));
    const picture = await readImage(join(path, "train/sub/rgb.png"));
    expect(pixelValues!.data).toEqual(florence2.imageProcessor.preprocess(picture).data);
    const error = await dataErrorOf(() => openDataset(path, { ...options, validate: true }));
    expect(error.message).toBe(
      `${join(path, "train/metadata.jsonl")}:3: ${join(path, "train/gone.png")}: there is no such file. Check the path.`,
    );
    await dataset.close?.();
    await processor.close();
  });
});
