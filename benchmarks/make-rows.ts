import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ImageTextToTextLM } from "../src/models/index.ts";
import { hashText, seededGenerator, uniformInteger } from "../src/tensor/random.ts";
import { fillNormal } from "./normal.ts";
import { emptyModel, type RowShape, type ShapeName, shapes } from "./shapes.ts";

/** Rows as all programs read them; pictures are float32 in a file of their own, one after the other. */
export type Rows = {
  readonly input_ids: number[][];
  readonly labels: number[][];
  readonly pixels?: {
    readonly file: string;
    readonly shape: readonly [channels: number, height: number, width: number];
  };
};

export type RowOptions = {
  readonly shape: ShapeName;
  readonly row: RowShape;
  readonly count: number;
  /** Share of each row of text, at its end, that carries labels. */
  readonly labelFraction: number;
  readonly seed: number;
};

/** Random rows below `cache`; returns their file. */
export function makeRows(cache: string, options: RowOptions): string {
  const { shape, row, count, labelFraction } = options;
  const lengths = row.kind === "text" ? [row.sequence, labelFraction] : [row.size, row.prompt, row.target];
  const file = join(cache, `rows-${shape}-${[count, ...lengths].join("-")}.json`);
  const rows =
    row.kind === "text" ? textRows(options, row.sequence) : pictureRows(options, row, `${file}.pixels`);
  replaceFile(file, JSON.stringify(rows));
  return file;
}

/** Whoever reads the file meanwhile has the old one, whole. */
function replaceFile(file: string, content: string | Float32Array): void {
  const temporary = `${file}.${process.pid}`;
  writeFileSync(temporary, content);
  renameSync(temporary, file);
}

type Random = ReturnType<typeof seededGenerator>;

/** Tokens from 4 on: those before have meanings. */
const makeTokens = (random: Random, count: number, vocabSize: number): number[] =>
  Array.from({ length: count }, () => uniformInteger(random, 4, vocabSize - 1));

function textRows({ shape, count, labelFraction, seed }: RowOptions, sequence: number): Rows {
  const random = seededGenerator(seed, hashText("tokens"));
  const vocabSize = shapes[shape].config["vocab_size"] as number;
  const unlabelled = sequence - Math.max(1, Math.round(sequence * labelFraction));
  const input_ids = Array.from({ length: count }, () => makeTokens(random, sequence, vocabSize));
  return {
    input_ids,
    labels: input_ids.map((ids) => ids.map((token, column) => (column < unlabelled ? -100 : token))),
  };
}

function pictureRows(
  { shape, count, seed }: RowOptions,
  { size, prompt, target }: RowShape & { kind: "picture" },
  file: string,
): Rows {
  const model = emptyModel(shapes[shape].config) as ImageTextToTextLM;
  const random = seededGenerator(seed, hashText("tokens"));
  const places = Array<number>(model.imageTokens({ height: size, width: size })).fill(model.imageTokenId);
  const pixels = new Float32Array(count * model.imageChannels * size * size);
  fillNormal(pixels, 1, seededGenerator(seed, hashText("pixels")));
  replaceFile(file, pixels);
  const rows = Array.from({ length: count }, () => ({
    ids: [...places, ...makeTokens(random, prompt, model.vocabSize)],
    labels: makeTokens(random, target, model.vocabSize),
  }));
  return {
    input_ids: rows.map(({ ids }) => ids),
    labels: rows.map(({ labels }) => labels),
    pixels: { file, shape: [model.imageChannels, size, size] },
  };
}
