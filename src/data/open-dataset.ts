import { DataError } from "../errors.ts";
import { concatDatasets } from "./combine.ts";
import { dataError } from "./problem.ts";
import { RowDataset, type RowDatasetOptions } from "./row-dataset.ts";
import { TextDataset } from "./text-dataset.ts";
import type { ByteSource, Dataset } from "./types.ts";

export type OpenDatasetOptions = RowDatasetOptions & {
  /** How the files are read. Default by extension: .txt and .md are "text", .jsonl, .ndjson, .json and .parquet are "rows". */
  format?: "rows" | "text" | undefined;
  /** Tokens per example of plain text. Default: `maxLength`, else 512. */
  blockSize?: number | undefined;
};

/** One place or several: paths of files and directories and patterns (in Node), or sources of bytes. */
export type DataLocation = string | ByteSource | readonly (string | ByteSource)[];

const remedies: Record<string, string> = {
  ".csv": "Convert it to JSONL, one object a line.",
  ".tsv": "Convert it to JSONL, one object a line.",
  ".arrow": "Export it as JSONL (Dataset.to_json in Python's datasets).",
  ".gz": "Decompress it first (gunzip).",
  ".zst": "Decompress it first (unzstd).",
  ".zip": "Unpack it first.",
};

/**
 * Open training or evaluation data: rows in JSONL, JSON or parquet (see encodeRow, and encodeDecoderRow for encoder–decoders),
 * or plain text (see TextDataset). Several files are joined in the given order; each file of rows may have its own kind.
 * @throws DataError that names the file: "unreadable", "no-files", "unknown-format", "empty", "wrong-kind" for plain text
 * where an encoder–decoder is to learn, and those of the rows.
 */
export async function openDataset(
  location: DataLocation,
  options: OpenDatasetOptions = {},
): Promise<Dataset> {
  const { format, blockSize, maxLength, tokenizer, appendEos, vocabSize, signal } = options;
  if (maxLength !== undefined && (!Number.isInteger(maxLength) || maxLength < 2))
    throw new DataError(`maxLength must be an integer of at least 2, got ${maxLength}.`, {
      code: "max-length",
    });
  const sources = await openSources(location);
  const datasets: Dataset[] = [];
  try {
    if (sources.length === 0)
      throw new DataError("No data files were given. Name at least one.", { code: "no-files" });
    const formats = sources.map((source) => format ?? formatOf(source));
    // Neighbouring text files are one stream of tokens.
    for (let i = 0; i < sources.length; ) {
      if (formats[i] === "rows") {
        datasets.push(await RowDataset.open(sources[i++]!, options));
        continue;
      }
      let end = i;
      while (formats[end] === "text") end++;
      const group = sources.slice(i, end);
      if (options.architecture === "encoder-decoder")
        throw dataError(
          "wrong-kind",
          { file: group[0]!.name },
          'plain text is for language models; an encoder–decoder learns from rows of {"prompt", "completion"}. Give those.',
        );
      if (tokenizer === undefined)
        throw dataError("no-tokenizer", { file: group[0]!.name }, "plain text needs a tokenizer. Pass one.");
      datasets.push(
        await TextDataset.open(group, {
          tokenizer,
          blockSize: blockSize ?? maxLength,
          appendEos,
          vocabSize,
          signal,
        }),
      );
      i = end;
    }
  } catch (error) {
    await Promise.all(sources.map((source) => source.close?.()));
    throw error;
  }
  return datasets.length === 1 ? datasets[0]! : concatDatasets(datasets);
}

function formatOf(source: ByteSource): "rows" | "text" {
  const extension = /\.[^./\\]+$/.exec(source.name)?.[0].toLowerCase() ?? "";
  if (/^\.(jsonl|ndjson|json|parquet)$/.test(extension)) return "rows";
  if (/^\.(txt|text|md)$/.test(extension)) return "text";
  throw dataError(
    "unknown-format",
    { file: source.name },
    `the extension ${JSON.stringify(extension)} says nothing about the format. ` +
      (remedies[extension] ?? 'Name it .jsonl, .json or .txt, or pass format: "rows" or "text".'),
    { extension },
  );
}

async function openSources(location: DataLocation): Promise<ByteSource[]> {
  const places = typeof location === "string" || !Array.isArray(location) ? [location] : location;
  const sources: ByteSource[] = [];
  try {
    for (const place of places as readonly (string | ByteSource)[]) {
      if (typeof place !== "string") sources.push(place);
      else {
        const { expandPaths, openFile } = await import("./node.ts");
        for (const path of await expandPaths([place])) sources.push(await openFile(path));
      }
    }
  } catch (error) {
    await Promise.all(sources.map((source) => source.close?.()));
    throw error;
  }
  return sources;
}
