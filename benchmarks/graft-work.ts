import { readFileSync } from "node:fs";
import { collate } from "../src/data/index.ts";
import { gradients } from "../src/graph/index.ts";
import {
  AutoModelForCausalLM,
  AutoModelForImageTextToText,
  imageTextFeeds,
  imageTextLoss,
  imageTextNoise,
  type LanguageModel,
} from "../src/models/index.ts";
import type { Engine } from "../src/runtime/index.ts";
import { tensor } from "../src/tensor/index.ts";
import { type StepResult, TrainingStep } from "../src/training/index.ts";
import type { Rows } from "./make-checkpoint.ts";

/** Forward and backward pass of the rows on some lines. */
type Run = (lines: readonly number[], seed: number) => Promise<StepResult>;

/** A model, and its training step once adapters are in it. */
export async function loadSteps(
  location: string,
  rows: Rows,
): Promise<{ model: LanguageModel; prepare: (engine: Engine) => Promise<Run> }> {
  return rows.pixels ? pictureSteps(location, rows, rows.pixels) : textSteps(location, rows);
}

async function textSteps(location: string, rows: Rows) {
  const model = await AutoModelForCausalLM.fromPretrained(location);
  const examples = rows.input_ids.map((inputIds, i) => ({ inputIds, labels: rows.labels[i]! }));
  const prepare = async (engine: Engine): Promise<Run> => {
    const training = await TrainingStep.create(model, engine);
    return (lines, seed) => {
      const batch = collate(
        lines.map((line) => examples[line]!),
        { padTokenId: 0, side: "right" },
      );
      return training.run(batch, { lossScale: 1 / batch.labelTokens, seed });
    };
  };
  return { model, prepare };
}

async function pictureSteps(location: string, rows: Rows, { file, shape }: NonNullable<Rows["pixels"]>) {
  const model = await AutoModelForImageTextToText.fromPretrained(location);
  const bytes = readFileSync(file);
  const pixels = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  const [channels, height, width] = shape;
  const size = channels * height * width;
  const int64 = (values: readonly number[][]) =>
    tensor("int64", [values.length, values[0]!.length], BigInt64Array.from(values.flat(), BigInt));
  const prepare = async (engine: Engine): Promise<Run> => {
    const trained = [...model.namedParameters()].flatMap(([, parameter]) =>
      parameter.trainable ? [parameter] : [],
    );
    const loss = imageTextLoss(model, { image: { height, width }, dropout: true });
    const cotangents = gradients(
      loss,
      trained.map((parameter) => parameter.value),
    );
    const session = await engine.createSession({
      loss,
      ...Object.fromEntries(trained.map(({ name }, i) => [`gradient ${name}`, cotangents[i]!])),
    });
    return async (lines, seed) => {
      const picked = new Float32Array(lines.length * size);
      for (const [i, line] of lines.entries())
        picked.set(pixels.subarray(line * size, (line + 1) * size), i * size);
      const inputIds = int64(lines.map((line) => rows.input_ids[line]!));
      const batch = {
        inputIds,
        attentionMask: tensor("int64", inputIds.shape, new BigInt64Array(inputIds.data.length).fill(1n)),
        labels: int64(lines.map((line) => rows.labels[line]!)),
        pixelValues: tensor("float32", [lines.length, channels, height, width], picked),
      };
      const { outputs } = await session.run({
        ...(await model.parameterFeeds()),
        ...imageTextFeeds(model, batch),
        ...imageTextNoise(model, batch, seed),
      });
      return {
        loss: (outputs["loss"]!.data as Float32Array)[0]!,
        gradients: new Map(
          trained.map(({ name }) => [name, outputs[`gradient ${name}`]!.data as Float32Array]),
        ),
      };
    };
  };
  return { model, prepare };
}
