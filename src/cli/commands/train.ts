import type { Command } from "commander";
import { getPeftModel, moduleTreeOf, type PeftModel } from "../../adapters/index.ts";
import { type Dataset, splitDataset } from "../../data/index.ts";
import { TrainingError } from "../../errors.ts";
import { CausalLM, type LanguageModel } from "../../models/index.ts";
import type { Engine } from "../../runtime/index.ts";
import type { Evaluation, EvaluationResult, TrainerCallback } from "../../training/index.ts";
import {
  resolveTrainingOptions,
  type TrainingOptionsInput,
  trainingOptionsSchema,
} from "../../training/options.ts";
import { configFlag, loraFlags } from "../adapter-flags.ts";
import { type AdapterRequest, givenOptions, loraProblems, readAdapter } from "../adapter-request.ts";
import { checkpointingFlags, withMode } from "../checkpointing-flags.ts";
import { dataFlags, dataNotes, maxLengthFlag, openData, tokenizerFlag } from "../data-flags.ts";
import { describeTargets } from "../describe.ts";
import { engineFlags, openEngine, threadsOf } from "../engine-flags.ts";
import { throwProblems } from "../errors.ts";
import { addFlags, flagName, number, optional, readFlags, text, texts, toggle } from "../flags.ts";
import { onInterrupt } from "../interrupt.ts";
import { type LoadedModel, loadAdapter, loadModel, padTokenId } from "../model.ts";
import { namingFlag, resolveNaming } from "../naming.ts";
import { Output } from "../output.ts";
import { schemaFlags, spelling } from "../schema-flags.ts";
import { TrainingProgress } from "../training-progress.ts";
import { reportTraining } from "../training-report.ts";
import { printDevices } from "./devices.ts";

const { outputDir: _, ...trainingShape } = trainingOptionsSchema.shape;

/** How options of training that have another name on the command line, or none, are called there. */
const otherWords = { outputDir: "--output", evalDataset: "--eval-data or --eval-split" };

export const spell = spelling(
  [
    ...Object.keys(trainingShape),
    ...Object.keys(loraFlags),
    ...Object.keys(engineFlags),
    ...Object.keys(dataFlags),
  ],
  otherWords,
);

const runFlags = {
  output: text("Folder for the adapter, checkpoints, metrics.jsonl and TensorBoard's events (runs/).", {
    placeholder: "dir",
  }),
  resume: optional("Go on with the latest checkpoint in --output, or with the one named.", "dir"),
  overwrite: toggle("Replace an unfinished run in --output."),
  ...namingFlag,
};
const startFlags = {
  adapter: text("Start from this adapter, its configuration and weights, instead of a new one.", {
    placeholder: "dir",
  }),
  ...configFlag,
};
const readingFlags = {
  ...dataFlags,
  evalData: texts("Data to evaluate on.", { placeholder: "file" }),
  evalSplit: number(
    "Part of the data to evaluate on instead of training: a fraction, or a number of examples.",
    {},
    (n) =>
      (n > 0 && n < 1) || (Number.isSafeInteger(n) && n >= 1)
        ? undefined
        : "must be a fraction between 0 and 1, or a whole number of examples",
  ),
  ...tokenizerFlag,
};
const trainingFlags = schemaFlags(trainingShape, {
  spell,
  except: { ...maxLengthFlag, ...checkpointingFlags(trainingShape) },
  aliases: {
    lrSchedulerType: ["lr-scheduler"],
    numTrainEpochs: ["epochs"],
    learningRate: ["lr"],
  },
});
const outputFlags = {
  json: toggle("Print one JSON document."),
  quiet: toggle("No notes and no progress."),
};

export function define(command: Command): void {
  command.argument("<model>", "directory with config.json and safetensors, or hf://org/name");
  addFlags(command, "Run", runFlags);
  addFlags(command, "Data", readingFlags);
  addFlags(command, "Adapter", { ...startFlags, ...loraFlags });
  addFlags(command, "Training", trainingFlags);
  addFlags(command, "Machine", engineFlags);
  addFlags(command, "Output", outputFlags);
  command.addHelpText(
    "after",
    `
Rows of data: {"text"}, {"prompt", "completion"}, {"messages"} or {"input_ids"[, "labels"]}; or plain text.
Only completions and what the assistant says are learned, where the row has them.
Ctrl-C saves a checkpoint and ends; --resume goes on from there.

Examples:
  graft train models/tiny-llama --data data/devils-dictionary/train.jsonl --eval-split 0.1 --output out/dictionary
  graft train models/tiny-llama --data data/devils-dictionary/train.jsonl \\
      --eval-data data/devils-dictionary/test.jsonl --target-modules q_proj,v_proj --layers-to-transform 4,5 \\
      --r 16 --lora-alpha 32 --epochs 1 --learning-rate 2e-3 --output out/last-layers
  graft train models/tiny-llama --data data/devils-dictionary/train.jsonl --target-modules '**.self_attn.*,!o_proj' \\
      --layers "last 25%" --max-steps 20 --output out/last-quarter
  graft train models/tiny-llama --adapter out/dictionary --data data/devils-dictionary/test.jsonl --output out/more
  graft train models/tiny-llama --data data/devils-dictionary/train.jsonl --eval-split 0.1 --output out/dictionary --resume`,
  );
  command.action((model: string) => run(model, command));
}

type Settings = ReturnType<typeof readSettings>;

/** All flags, checked as far as they can be before anything is read. @throws UsageError, TrainingError */
function readSettings(command: Command, output: Output) {
  const problems: string[] = [];
  const lora = readFlags(command, loraFlags, problems);
  const start = readFlags(command, startFlags, problems);
  const place = readFlags(command, runFlags, problems);
  const reading = readFlags(command, readingFlags, problems);
  const options = withMode(readFlags(command, trainingFlags, problems)) as TrainingOptionsInput;
  const machine = readFlags(command, engineFlags, problems);
  if (reading.data === undefined) problems.push("--data is missing: name the data to train on");
  if (place.output === undefined) problems.push("--output is missing: name a folder for the adapter");
  if (reading.evalData && reading.evalSplit !== undefined)
    problems.push("--eval-data and --eval-split both say what to evaluate on; give one of them");
  if (place.resume !== undefined && place.overwrite)
    problems.push("--resume goes on with a run, --overwrite replaces it; give one of them");
  const shaping = [...Object.keys(givenOptions(lora)), ...(start.config === undefined ? [] : ["config"])];
  if (start.adapter !== undefined && shaping.length > 0)
    problems.push(
      `--adapter brings its own configuration; leave out ${shaping.map(flagName).join(", ")}, or --adapter`,
    );
  if (start.config === undefined) problems.push(...loraProblems(lora).map(spell));
  const hasEvalData = reading.evalData !== undefined || reading.evalSplit !== undefined;
  try {
    resolveTrainingOptions({ ...options, outputDir: place.output }, { hasEvalData });
  } catch (error) {
    if (!(error instanceof TrainingError) || !Array.isArray(error.details["problems"])) throw error;
    problems.push(...(error.details["problems"] as string[]).map(spell));
  }
  throwProblems(problems);
  return { lora, start, place, reading, options, machine, output };
}

async function run(location: string, command: Command): Promise<void> {
  const output = new Output(readFlags(command, outputFlags, []));
  if (readFlags(command, engineFlags, []).device === "list") return printDevices(output);
  const settings = readSettings(command, output);
  const { reading, machine, options } = settings;
  const request = await adapterRequest(settings);
  const loaded = await loadModel(location, { tokenizerLocation: reading.tokenizer, output });
  const peft = await adapt(loaded.model, request, settings);
  const opened: Dataset[] = [];
  try {
    const data = await openSets(settings, loaded, opened);
    describeStart(peft, output);
    const engine = await openEngine(machine);
    try {
      const limit = options.maxLength ?? loaded.model.maxPositions;
      const notes = (): string[] => opened.flatMap((dataset) => dataNotes(dataset, limit));
      await train(peft, data, { settings, loaded, engine, notes });
    } finally {
      await engine.dispose();
    }
  } finally {
    await Promise.all(opened.map((dataset) => dataset.close?.()));
  }
}

/** What a new adapter is to be; undefined if one is loaded. */
async function adapterRequest({ start, lora }: Settings): Promise<AdapterRequest | undefined> {
  if (start.adapter !== undefined) return undefined;
  const request = await readAdapter(start.config, lora);
  return { ...request, config: request.config.with({ inferenceMode: false }) };
}

/** The request with the model's task, which flags leave open. PEFT has none that works for encoder–decoders. */
const withTask = (
  request: AdapterRequest,
  model: LanguageModel,
  { start, lora }: Settings,
): AdapterRequest =>
  model instanceof CausalLM && start.config === undefined && lora.taskType === undefined
    ? { ...request, config: request.config.with({ taskType: "CAUSAL_LM" }) }
    : request;

/** Puts a new adapter, or the one to start from, into the model. */
async function adapt(
  model: LanguageModel,
  request: AdapterRequest | undefined,
  settings: Settings,
): Promise<PeftModel<LanguageModel>> {
  const { start, options, output } = settings;
  if (request === undefined) return loadAdapter(model, start.adapter!, { isTrainable: true, output });
  const seed = options.seed ?? trainingOptionsSchema.shape.seed.parse(undefined);
  const { native } = await resolveNaming(withTask(request, model, settings), moduleTreeOf(model));
  const { config, warnings } = native.adapter;
  const peft = getPeftModel(model, config, { seed });
  for (const { message } of [...warnings, ...peft.selection.warnings]) output.warn(spell(message));
  return peft;
}

type Sets = { readonly trainDataset: Dataset; readonly evalDataset: Dataset | undefined };

/** Opens the data; what must be closed is put into `opened`. */
async function openSets(
  { reading, options }: Settings,
  loaded: LoadedModel,
  opened: Dataset[],
): Promise<Sets> {
  const settings = { ...reading, maxLength: options.maxLength };
  const all = await openData(reading.data!, settings, loaded);
  opened.push(all);
  if (reading.evalData) {
    const evalDataset = await openData(reading.evalData, settings, loaded);
    opened.push(evalDataset);
    return { trainDataset: all, evalDataset };
  }
  const { evalSplit } = reading;
  if (evalSplit === undefined) return { trainDataset: all, evalDataset: undefined };
  const part = evalSplit < 1 ? { fraction: evalSplit } : { count: evalSplit };
  const { train, heldOut } = splitDataset(all, part, options.seed);
  return { trainDataset: train, evalDataset: heldOut };
}

function describeStart(peft: PeftModel<LanguageModel>, output: Output): void {
  const { targets, modulesToSave } = peft.selection;
  output.note(`adapting ${describeTargets(targets.map(({ name }) => name))}`);
  if (modulesToSave.length > 0) output.note(`training as a whole: ${modulesToSave.join(", ")}`);
  peft.printTrainableParameters((line) => output.note(line));
}

type Context = {
  readonly settings: Settings;
  readonly loaded: LoadedModel;
  readonly engine: Engine;
  /** What has been noticed about the data by now. */
  readonly notes: () => string[];
};

async function train(
  peft: PeftModel<LanguageModel>,
  sets: Sets,
  { settings, loaded, engine, notes }: Context,
): Promise<void> {
  const { place, options, output } = settings;
  const { Trainer } = await import("../../training/index.ts");
  const progress = new TrainingProgress(output, spell);
  const history: Evaluation[] = [];
  let before: EvaluationResult | undefined;
  const interrupt = onInterrupt(() =>
    output.note("interrupted: saving a checkpoint (press Ctrl-C again to quit now)"),
  );
  const watch: TrainerCallback = {
    // Not earlier: by now the output folder is known to be usable, and whether this goes on with an earlier run.
    onTrainBegin: async ({ step }) => {
      if (sets.evalDataset === undefined || step > 0) return;
      before = await trainer.evaluate();
      output.note(`evaluation loss before training: ${before.loss.toFixed(4)}`);
    },
    onEvaluate: (evaluation) => void history.push(evaluation),
  };
  let trainer: InstanceType<typeof Trainer>;
  try {
    trainer = new Trainer({
      ...options,
      outputDir: place.output,
      model: peft,
      ...sets,
      padTokenId: padTokenId(loaded),
      engine,
      callbacks: [watch, progress],
      signal: interrupt.signal,
      resume: place.resume ?? false,
      overwrite: place.overwrite ?? false,
      naming: place.naming,
    });
    const result = await trainer.train();
    interrupt.release(); // all is saved
    progress.stop();
    const last = options.loadBestModelAtEnd
      ? history.find(({ step }) => step === result.best?.step)
      : history.find(({ step }) => step === result.steps.at(-1)?.step);
    const after =
      sets.evalDataset && result.reason !== "aborted" ? (last ?? (await trainer.evaluate())) : undefined;
    if (result.reason === "aborted") process.exitCode = interrupt.exitCode;
    for (const note of notes()) output.note(note);
    reportTraining(
      peft,
      result,
      { before, after, history },
      {
        ...{ output, folder: place.output!, loaded },
        threads: threadsOf(settings.machine),
        loadSeconds: progress.loadSeconds,
      },
    );
  } catch (error) {
    if (!interrupt.signal.aborted || error !== interrupt.signal.reason) throw error;
    output.note("interrupted before training began: nothing was saved");
    output.document({ steps: [], adapter: null, reason: "aborted" });
    process.exitCode = interrupt.exitCode;
  } finally {
    progress.stop();
    interrupt.release();
  }
}
