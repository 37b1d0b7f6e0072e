import { readFile } from "node:fs/promises";
import { text as readStream } from "node:stream/consumers";
import type { Command } from "commander";
import type { Example } from "../../data/index.ts";
import { DataError, UsageError } from "../../errors.ts";
import type {
  EarlyStopping,
  Generated,
  GeneratedAnswer,
  GenerationOptions,
  Prompt,
  ReadPrompt,
  StopReason,
  TextGenerator,
} from "../../generation/index.ts";
import { generationOptionsSchema } from "../../generation/options.ts";
import { CausalLM, ImageTextToTextLM, type LanguageModel } from "../../models/index.ts";
import type { Tensor } from "../../tensor/index.ts";
import { baseDtypeFlag, quantize } from "../base-dtype.ts";
import { tokenizerFlag } from "../data-flags.ts";
import { engineFlags, openEngine } from "../engine-flags.ts";
import { throwProblems, withAdvice } from "../errors.ts";
import {
  addFlags,
  custom,
  FlagProblem,
  type FlagValues,
  flagName,
  integers,
  readFlags,
  single,
  text,
  texts,
  toggle,
} from "../flags.ts";
import { type LoadedModel, loadAdapter, loadModel, padTokenId } from "../model.ts";
import { Output } from "../output.ts";
import { schemaFlags, spelling } from "../schema-flags.ts";
import { printDevices } from "./devices.ts";

const promptFlags = {
  prompt: text(
    "Text to continue, or to write about; for a model that reads pictures a task such as <CAPTION>. Default: what is on standard input.",
  ),
  promptFile: text("File with that text.", { placeholder: "file" }),
  promptTokens: integers("Token ids instead of text; with a picture its placeholders are among them."),
  image: text("Picture that the prompt is about: a file or a data URL.", { placeholder: "file" }),
  pixelValuesFile: text(
    "Picture as the model takes it, instead: a .npy file of float32 [channels, height, width].",
    { placeholder: "file" },
  ),
  chat: toggle("Put the text to the model as a message of the user, by its chat template."),
  adapter: text("Adapter to put into the model: a directory that PEFT or graft saved.", {
    placeholder: "dir",
  }),
  ...baseDtypeFlag,
  ...tokenizerFlag,
};
const samplingFlags = schemaFlags(generationOptionsSchema.shape, {
  spell: (text) => text,
  aliases: { maxNewTokens: ["max-tokens"] },
  except: {
    earlyStopping: custom(
      generationOptionsSchema.shape.earlyStopping.description!,
      { placeholder: "word" },
      readEarlyStopping,
    ),
    forcedEosTokenId: integers(generationOptionsSchema.shape.forcedEosTokenId.description!),
    stop: texts("Text at which to stop; it is not part of the output. May be given several times."),
    eosTokenIds: integers("Tokens that end the text. Default: the model's."),
  },
});
const outputFlags = {
  json: toggle("Print one JSON document."),
  quiet: toggle("No notes."),
};

export const spell = spelling(Object.keys({ ...promptFlags, ...samplingFlags, ...engineFlags }));

export function define(command: Command): void {
  command.argument("<model>", "directory with config.json and safetensors, or hf://org/name");
  addFlags(command, "Prompt", promptFlags);
  addFlags(command, "Generation", samplingFlags);
  addFlags(command, "Machine", engineFlags);
  addFlags(command, "Output", outputFlags);
  command.addHelpText(
    "after",
    `
Prints the text as it comes. What is not given is taken from the model's generation_config.json.
In JSON, text is without special tokens, and tokens are the new tokens. Of a model that reads pictures, text has the
locations in the picture, parsed is what they say in pixels, and image is the picture's size.

Examples:
  graft generate models/tiny-llama --prompt "And it came to pass"
  graft generate models/tiny-llama --adapter out/dictionary --prompt "Love, n. " --temperature 0 --max-new-tokens 40
  graft generate models/tiny-llama --prompt "In the beginning" --temperature 0 --num-beams 4 --no-repeat-ngram-size 3
  echo "In the beginning" | graft generate models/tiny-llama --temperature 0.8 --top-p 0.9 --seed 1
  graft generate hf://florence-community/Florence-2-base --image photo.jpg --prompt "<OD>" --json`,
  );
  command.action((model: string) => run(model, command));
}

async function run(location: string, command: Command): Promise<void> {
  const problems: string[] = [];
  const source = readFlags(command, promptFlags, problems);
  const options = readFlags(command, samplingFlags, problems) as GenerationOptions;
  const machine = readFlags(command, engineFlags, problems);
  const output = new Output(readFlags(command, outputFlags, problems));
  if (machine.device === "list") return printDevices(output);
  const sources = (["prompt", "promptFile", "promptTokens"] as const).filter(
    (name) => source[name] !== undefined,
  );
  if (sources.length > 1)
    problems.push(`${sources.map(flagName).join(", ")} each say what to continue; give one of them`);
  if (source.image !== undefined && source.pixelValuesFile !== undefined)
    problems.push("--image, --pixel-values-file each say what the picture is; give one of them");
  if (source.chat && source.promptTokens) problems.push("--chat needs text; --prompt-tokens gives token ids");
  throwProblems(problems);

  const { checkGenerationOptions, generationSettings, readPrompt, TextGenerator } = await import(
    "../../generation/index.ts"
  );
  checkGenerationOptions(options); // what is wrong with the options is said before anything is loaded
  const loaded = await loadModel(location, { tokenizerLocation: source.tokenizer, output });
  const { model, tokenizer, processor } = loaded;
  const { config, warnings } = generationSettings(model, options);
  for (const { message } of warnings) output.warn(spell(message));
  if (config.stop.length > 0 && tokenizer === undefined)
    throw withAdvice(loaded.tokenizerProblem!, "Texts to stop at need a tokenizer.");
  checkKind(source, loaded);
  const asked = await givenPrompt(source, loaded, output);
  const prompt = await readPrompt(asked, { model, tokenizer, processor });
  if (source.adapter !== undefined) await loadAdapter(model, source.adapter, { isTrainable: false, output });
  const engine = await openEngine(machine);
  try {
    await quantize(model, source.baseDtype, output, () => ({
      engine,
      example: exampleOf(prompt),
      padTokenId: padTokenId(loaded),
    }));
    const generator = await TextGenerator.create(model, { engine, tokenizer, processor });
    const started = performance.now();
    const show = ({ tokens, text }: Pick<Generated, "tokens" | "text">): string =>
      tokenizer ? text : tokens.map((token) => `${token} `).join("");
    const isStreamed = config.numBeams === 1 && config.numReturnSequences === 1;
    const answer = isStreamed
      ? await streamed(generator, { prompt, options, output, show })
      : await generator.generate(prompt, options);
    if (isStreamed) output.print("");
    else for (const sequence of answer.sequences) output.print(show(sequence));
    const seconds = (performance.now() - started) / 1000;
    const plain = ({ text, tokens, reason, score, parsed }: Generated) => ({
      text: tokenizer ? text : null,
      tokens,
      reason,
      ...(score !== undefined && { score }),
      ...(parsed !== undefined && { parsed }),
    });
    output.document({
      ...plain(answer),
      promptTokens: prompt.tokens.length,
      seconds,
      ...(prompt.image && { image: prompt.image }),
      ...(config.numReturnSequences > 1 && { sequences: answer.sequences.map(plain) }),
    });
    await generator.dispose();
  } finally {
    await engine.dispose();
  }
}

/** A prompt as if it were to be learned: for more is not known of what the model will read and write. */
function exampleOf({ tokens, pixelValues }: ReadPrompt): Example {
  const ids = tokens.length > 1 ? [...tokens] : [...tokens, ...tokens];
  const shape = pixelValues?.shape.slice(-3);
  return {
    inputIds: ids,
    labels: ids,
    ...(pixelValues && shape && { pixelValues: { ...pixelValues, shape } }),
  };
}

/** One text, written as it comes. */
async function streamed(
  generator: TextGenerator,
  {
    prompt,
    options,
    output,
    show,
  }: {
    prompt: ReadPrompt;
    options: GenerationOptions;
    output: Output;
    show: (piece: Pick<Generated, "tokens" | "text">) => string;
  },
): Promise<GeneratedAnswer> {
  const tokens: number[] = [];
  let text = "";
  let last: StopReason | undefined;
  for await (const piece of generator.stream(prompt, options)) {
    tokens.push(piece.token);
    text += piece.text;
    last = piece.reason;
    output.write(show({ tokens: [piece.token], text: piece.text }));
    if (output.closed) break;
  }
  const parsed = generator.parse(tokens, prompt);
  const generated: Generated = {
    tokens,
    text,
    reason: last ?? "length",
    ...(parsed !== undefined && { parsed }),
  };
  return { ...generated, sequences: [generated] };
}

/** @throws UsageError for flags that the model's kind has no use for, or lacks */
function checkKind(
  { image, pixelValuesFile, chat, promptTokens }: FlagValues<typeof promptFlags>,
  { location, model, processorProblem }: LoadedModel,
): void {
  const { modelType } = model;
  const readsPictures = model instanceof ImageTextToTextLM;
  const problems: string[] = [];
  const pictures = Object.entries({ image, pixelValuesFile }).filter(([, given]) => given !== undefined);
  if (pictures[0] && !readsPictures)
    problems.push(`${flagName(pictures[0][0])}: ${location} is of type ${modelType}, which reads text alone`);
  if (readsPictures && pictures.length === 0 && promptTokens === undefined)
    problems.push(
      `${location} is of type ${modelType}, which is asked about a picture; give one with --image`,
    );
  if (chat && !(model instanceof CausalLM))
    problems.push(
      `--chat: ${location} is of type ${modelType}, an encoder–decoder, which has no conversations; leave it out`,
    );
  throwProblems(problems);
  if (image !== undefined && processorProblem)
    throw withAdvice(processorProblem, "Pictures need the model's processor.");
}

/** What to write about, or to go on from. */
async function givenPrompt(
  source: FlagValues<typeof promptFlags>,
  { model, tokenizer, tokenizerProblem, processor }: LoadedModel,
  output: Output,
): Promise<Prompt> {
  const { image, pixelValuesFile } = source;
  const pixelValues =
    pixelValuesFile === undefined ? undefined : await readPixelValues(pixelValuesFile, model);
  if (source.promptTokens) return { prompt: source.promptTokens, image, pixelValues };
  if (tokenizer === undefined)
    throw withAdvice(tokenizerProblem!, "Or give token ids, with --prompt-tokens.");
  const text = await promptText(source, output);
  if (text === "" && (source.chat || processor || tokenizer.encode("").length === 0))
    throw new UsageError(
      `The prompt is empty. Give a text with --prompt${processor ? ", such as <CAPTION>" : ""}.`,
      { code: "empty-prompt" },
    );
  if (!source.chat) {
    const { unknownTask } = await import("../../generation/index.ts");
    const unknown = processor && unknownTask(text, (token) => tokenizer.tokenToId(token) !== undefined);
    if (unknown)
      output.note(
        `note: ${unknown.token} is no task of ${model.modelType}, and is put to the model as it stands.` +
          (unknown.nearest[0] ? ` Did you mean ${unknown.nearest[0]}?` : ""),
      );
    return { prompt: text, image, pixelValues };
  }
  const rendered = tokenizer.applyChatTemplate([{ role: "user", content: text }], {
    addGenerationPrompt: true,
  });
  return tokenizer.encode(rendered, { addSpecialTokens: false });
}

async function readPixelValues(path: string, model: LanguageModel): Promise<Tensor<"float32">> {
  const { readNpy } = await import("../../data/npy.ts");
  return readNpy(path, { file: "--pixel-values-file" }, (model as ImageTextToTextLM).imageChannels);
}

/** @throws FlagProblem */
function readEarlyStopping(texts: readonly string[]): EarlyStopping {
  const typed = single(texts);
  if (typed === "never") return typed;
  if (typed === "true" || typed === "false") return typed === "true";
  throw new FlagProblem(`must be one of true, false, never, got ${JSON.stringify(typed)}`);
}

async function promptText(source: FlagValues<typeof promptFlags>, output: Output): Promise<string> {
  if (source.prompt !== undefined) return source.prompt;
  if (source.promptFile !== undefined) {
    try {
      return withoutLineEnd(await readFile(source.promptFile, "utf8"));
    } catch (cause) {
      throw new DataError(`${source.promptFile}: the prompt cannot be read: ${(cause as Error).message}.`, {
        code: "unreadable",
        details: { file: source.promptFile, errno: (cause as NodeJS.ErrnoException).code },
        cause,
      });
    }
  }
  if (process.stdin.isTTY) output.note("Type the text to continue, then Ctrl-D.");
  return withoutLineEnd(await readStream(process.stdin));
}

/** Files and pipes end in a line break that is not meant. */
const withoutLineEnd = (text: string): string => text.replace(/\r?\n$/, "");
