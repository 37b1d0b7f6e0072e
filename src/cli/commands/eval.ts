import type { Command } from "commander";
import { writeFileAtomic } from "../../checkpoint/node.ts";
import type { Dataset } from "../../data/index.ts";
import type { TextScores } from "../../evaluation/index.ts";
import { type GenerationOptions, generationOptionsSchema } from "../../generation/options.ts";
import type { Engine } from "../../runtime/index.ts";
import { baseDtypeFlag, quantize } from "../base-dtype.ts";
import { dataFlags, dataNotes, maxLengthFlag, openData, tokenizerFlag } from "../data-flags.ts";
import { grouped } from "../describe.ts";
import { engineFlags, openEngine } from "../engine-flags.ts";
import { throwProblems, withAdvice } from "../errors.ts";
import { addFlags, choice, type FlagValues, flagName, number, readFlags, text, toggle } from "../flags.ts";
import { type LoadedModel, loadAdapter, loadModel, padTokenId } from "../model.ts";
import { Output } from "../output.ts";
import { Progress } from "../progress.ts";
import { schemaFlags, spelling } from "../schema-flags.ts";
import { printDevices } from "./devices.ts";

const evalFlags = {
  adapter: text("Adapter to put into the model: a directory that PEFT or graft saved.", {
    placeholder: "dir",
  }),
  batchSize: number("Examples per batch. Default: 8.", {}, (n) =>
    Number.isSafeInteger(n) && n >= 1 ? undefined : "must be a whole number of at least 1",
  ),
  ...baseDtypeFlag,
  paddingSide: choice("Where shorter examples of a batch are padded. Default: right.", ["right", "left"]),
};
const { maxNewTokens, numBeams } = generationOptionsSchema.shape;
const writingFlags = {
  generate: toggle(
    "Also have every example's completion written, and score it: exact match and ROUGE. Takes the most probable tokens.",
  ),
  ...schemaFlags({ maxNewTokens, numBeams }, { spell: (text) => text }),
  predictions: text("File for what was written, with what should have been: one JSON object a line.", {
    placeholder: "file",
  }),
};
const readingFlags = { ...dataFlags, ...maxLengthFlag, ...tokenizerFlag };
const outputFlags = {
  json: toggle("Print one JSON document."),
  quiet: toggle("No notes and no progress."),
};

export const spell = spelling(
  Object.keys({ ...evalFlags, ...writingFlags, ...readingFlags, ...engineFlags }),
);

export function define(command: Command): void {
  command.argument("<model>", "directory with config.json and safetensors, or hf://org/name");
  addFlags(command, "Evaluation", evalFlags);
  addFlags(command, "Generation", writingFlags);
  addFlags(command, "Data", readingFlags);
  addFlags(command, "Machine", engineFlags);
  addFlags(command, "Output", outputFlags);
  command.addHelpText(
    "after",
    `
The loss is the mean over all label tokens of the data, in nats; perplexity is exp(loss).
Exact match is the share of completions written word for word; ROUGE-1, -2 and -L are F1 of words, pairs of words and
longest common subsequences, from 0 to 1.

Examples:
  graft eval models/tiny-llama --data data/devils-dictionary/test.jsonl
  graft eval models/tiny-llama --adapter out/dictionary --data data/devils-dictionary/test.jsonl --json
  graft eval models/tiny-florence2 --data data/emoji-captions/test.jsonl --generate --predictions out/captions.jsonl`,
  );
  command.action((model: string) => run(model, command));
}

async function run(location: string, command: Command): Promise<void> {
  const problems: string[] = [];
  const { adapter, batchSize = 8, paddingSide, baseDtype } = readFlags(command, evalFlags, problems);
  const writing = readFlags(command, writingFlags, problems);
  const reading = readFlags(command, readingFlags, problems);
  const machine = readFlags(command, engineFlags, problems);
  const output = new Output(readFlags(command, outputFlags, problems));
  if (machine.device === "list") return printDevices(output);
  if (reading.data === undefined) problems.push("--data is missing: name the data to evaluate on");
  const idle = (["maxNewTokens", "numBeams", "predictions"] as const).filter(
    (name) => writing[name] !== undefined,
  );
  if (!writing.generate && idle.length > 0)
    problems.push(`${idle.map(flagName).join(", ")}: only with --generate; add it`);
  throwProblems(problems);

  const loaded = await loadModel(location, { tokenizerLocation: reading.tokenizer, output });
  const { model } = loaded;
  if (adapter !== undefined) await loadAdapter(model, adapter, { isTrainable: false, output });
  const dataset = await openData(reading.data!, reading, loaded);
  const progress = new Progress(output, { label: "evaluating", unit: "examples", total: dataset.length });
  try {
    const engine = await openEngine(machine);
    try {
      await quantize(model, baseDtype, output, async () => ({
        engine,
        example: await dataset.get(0),
        padTokenId: padTokenId(loaded),
      }));
      const { evaluate } = await import("../../training/index.ts");
      const { loss, perplexity, labelTokens, seconds } = await evaluate(model, dataset, {
        engine,
        batchSize,
        paddingSide,
        padTokenId: padTokenId(loaded),
        onProgress: (done) => progress.update(done),
      });
      progress.stop();
      const notes = dataNotes(dataset, reading.maxLength ?? model.maxPositions);
      for (const note of notes) output.note(note);
      const scores = writing.generate
        ? await write(dataset, { loaded, engine, output, batchSize, writing })
        : undefined;
      output.document({
        loss,
        perplexity,
        tokens: labelTokens,
        examples: dataset.length,
        seconds,
        ...(scores && { generation: scores }),
      });
      output.print(`loss        ${loss.toFixed(6)}`);
      output.print(`perplexity  ${perplexity.toPrecision(6)}`);
      output.print(`tokens      ${grouped(labelTokens)}`);
      if (scores) printScores(scores, output);
    } finally {
      await engine.dispose();
    }
  } finally {
    progress.stop();
    await dataset.close?.();
  }
}

type Writing = {
  readonly loaded: LoadedModel;
  readonly engine: Engine;
  readonly output: Output;
  readonly batchSize: number;
  readonly writing: FlagValues<typeof writingFlags>;
};

/** Has the completions written, and scores them. */
async function write(
  dataset: Dataset,
  { loaded: { model, tokenizer, tokenizerProblem, processor }, engine, output, batchSize, writing }: Writing,
): Promise<TextScores & { seconds: number }> {
  const { decoderOf, TextGenerator } = await import("../../generation/index.ts");
  const { evaluateTexts } = await import("../../evaluation/index.ts");
  const decode = decoderOf({ tokenizer, processor });
  if (!decode)
    throw withAdvice(tokenizerProblem!, "Completions are compared as text, which needs a tokenizer.");
  const { maxNewTokens, numBeams, predictions } = writing;
  const generator = await TextGenerator.create(model, { engine, tokenizer, processor });
  const progress = new Progress(output, { label: "writing", unit: "examples", total: dataset.length });
  const started = performance.now();
  try {
    const { scores, pairs } = await evaluateTexts(model, dataset, {
      generator,
      decode,
      generation: { doSample: false, maxNewTokens, numBeams } as GenerationOptions,
      batchSize,
      onProgress: (done) => progress.update(done),
    });
    const seconds = (performance.now() - started) / 1000;
    if (predictions !== undefined)
      await writeFileAtomic(predictions, pairs.map((pair) => `${JSON.stringify(pair)}\n`).join(""));
    return { ...scores, seconds };
  } finally {
    progress.stop();
    await generator.dispose();
  }
}

function printScores({ texts, exactMatch, rouge1, rouge2, rougeL }: TextScores, output: Output): void {
  output.print(`texts       ${grouped(texts)}`);
  output.print(`exact match ${(100 * exactMatch).toFixed(1)} %`);
  output.print(`ROUGE-1     ${rouge1.toFixed(4)}`);
  output.print(`ROUGE-2     ${rouge2.toFixed(4)}`);
  output.print(`ROUGE-L     ${rougeL.toFixed(4)}`);
}
