import type { Command } from "commander";
import { dataFlags, dataNotes, maxLengthFlag, openData, tokenizerFlag } from "../data-flags.ts";
import { grouped } from "../describe.ts";
import { engineFlags, openEngine } from "../engine-flags.ts";
import { throwProblems } from "../errors.ts";
import { addFlags, choice, number, readFlags, text, toggle } from "../flags.ts";
import { loadAdapter, loadModel, padTokenId } from "../model.ts";
import { Output } from "../output.ts";
import { Progress } from "../progress.ts";
import { spelling } from "../schema-flags.ts";
import { printDevices } from "./devices.ts";

const evalFlags = {
  adapter: text("Adapter to put into the model: a directory that PEFT or graft saved.", {
    placeholder: "dir",
  }),
  batchSize: number("Examples per batch. Default: 8.", {}, (n) =>
    Number.isSafeInteger(n) && n >= 1 ? undefined : "must be a whole number of at least 1",
  ),
  paddingSide: choice("Where shorter examples of a batch are padded. Default: right.", ["right", "left"]),
};
const readingFlags = { ...dataFlags, ...maxLengthFlag, ...tokenizerFlag };
const outputFlags = {
  json: toggle("Print one JSON document."),
  quiet: toggle("No notes and no progress."),
};

export const spell = spelling(Object.keys({ ...evalFlags, ...readingFlags, ...engineFlags }));

export function define(command: Command): void {
  command.argument("<model>", "directory with config.json and safetensors, or hf://org/name");
  addFlags(command, "Evaluation", evalFlags);
  addFlags(command, "Data", readingFlags);
  addFlags(command, "Machine", engineFlags);
  addFlags(command, "Output", outputFlags);
  command.addHelpText(
    "after",
    `
The loss is the mean over all label tokens of the data, in nats; perplexity is exp(loss).

Examples:
  graft eval models/tiny-llama --data data/devils-dictionary/test.jsonl
  graft eval models/tiny-llama --adapter out/dictionary --data data/devils-dictionary/test.jsonl --json`,
  );
  command.action((model: string) => run(model, command));
}

async function run(location: string, command: Command): Promise<void> {
  const problems: string[] = [];
  const { adapter, batchSize = 8, paddingSide } = readFlags(command, evalFlags, problems);
  const reading = readFlags(command, readingFlags, problems);
  const machine = readFlags(command, engineFlags, problems);
  const output = new Output(readFlags(command, outputFlags, problems));
  if (machine.device === "list") return printDevices(output);
  if (reading.data === undefined) problems.push("--data is missing: name the data to evaluate on");
  throwProblems(problems);

  const loaded = await loadModel(location, { tokenizerLocation: reading.tokenizer, output });
  const { model } = loaded;
  if (adapter !== undefined) await loadAdapter(model, adapter, { isTrainable: false, output });
  const dataset = await openData(reading.data!, reading, loaded);
  const progress = new Progress(output, { label: "evaluating", unit: "examples", total: dataset.length });
  try {
    const engine = await openEngine(machine);
    try {
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
      output.document({ loss, perplexity, tokens: labelTokens, examples: dataset.length, seconds });
      output.print(`loss        ${loss.toFixed(6)}`);
      output.print(`perplexity  ${perplexity.toPrecision(6)}`);
      output.print(`tokens      ${grouped(labelTokens)}`);
    } finally {
      await engine.dispose();
    }
  } finally {
    progress.stop();
    await dataset.close?.();
  }
}
