import { readFile } from "node:fs/promises";
import { text as readStream } from "node:stream/consumers";
import type { Command } from "commander";
import { DataError, UsageError } from "../../errors.ts";
import { type GenerationOptions, generationOptionsSchema } from "../../generation/config.ts";
import { tokenizerFlag } from "../data-flags.ts";
import { engineFlags, openEngine } from "../engine-flags.ts";
import { throwProblems, withAdvice } from "../errors.ts";
import { addFlags, type FlagValues, flagName, integers, readFlags, text, texts, toggle } from "../flags.ts";
import { type LoadedModel, loadAdapter, loadModel } from "../model.ts";
import { Output } from "../output.ts";
import { schemaFlags, spelling } from "../schema-flags.ts";
import { printDevices } from "./devices.ts";

const promptFlags = {
  prompt: text("Text to continue. Default: what is on standard input."),
  promptFile: text("File with the text to continue.", { placeholder: "file" }),
  promptTokens: integers("Token ids to continue, instead of text."),
  chat: toggle("Put the text to the model as a message of the user, by its chat template."),
  adapter: text("Adapter to put into the model: a directory that PEFT or graft saved.", {
    placeholder: "dir",
  }),
  ...tokenizerFlag,
};
const samplingFlags = schemaFlags(generationOptionsSchema.shape, {
  spell: (text) => text,
  aliases: { maxNewTokens: ["max-tokens"] },
  except: {
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
Prints the continuation as it comes. What is not given is taken from the model's generation_config.json.
In JSON, text is the continuation without special tokens, and tokens are the new tokens.

Examples:
  graft generate models/tiny-llama --prompt "And it came to pass"
  graft generate models/tiny-llama --adapter out/dictionary --prompt "Love, n. " --temperature 0 --max-new-tokens 40
  echo "In the beginning" | graft generate models/tiny-llama --temperature 0.8 --top-p 0.9 --seed 1`,
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
  if (source.chat && source.promptTokens) problems.push("--chat needs text; --prompt-tokens gives token ids");
  throwProblems(problems);

  const { CachedDecoder, generate, resolveGenerationConfig } = await import("../../generation/index.ts");
  resolveGenerationConfig(options); // what is wrong with the options is said before anything is loaded
  const loaded = await loadModel(location, { tokenizerLocation: source.tokenizer, output });
  const { model, tokenizer } = loaded;
  const { config, warnings } = resolveGenerationConfig(options, {
    file: model.origin.generationConfig,
    name: `${model.origin.name}/generation_config.json`,
    eosTokenIds: model.eosTokenIds,
  });
  for (const { message } of warnings) output.warn(spell(message));
  if (config.stop.length > 0 && tokenizer === undefined)
    throw withAdvice(loaded.tokenizerProblem!, "Texts to stop at need a tokenizer.");
  const prompt = await readPrompt(source, loaded, output);
  if (source.adapter !== undefined) await loadAdapter(model, source.adapter, { isTrainable: false, output });

  const engine = await openEngine(machine);
  try {
    const decoder = await CachedDecoder.create(model, engine);
    const decode = tokenizer && ((ids: number[]) => tokenizer.decode(ids, { skipSpecialTokens: true }));
    const started = performance.now();
    const tokens: number[] = [];
    let text = "";
    let reason: string | undefined;
    for await (const piece of generate(decoder, prompt, { config, decode })) {
      tokens.push(piece.token);
      text += piece.text;
      reason = piece.reason;
      output.write(decode ? piece.text : `${piece.token} `);
      if (output.closed) break;
    }
    const seconds = (performance.now() - started) / 1000;
    output.print("");
    output.document({ text: decode ? text : null, tokens, reason, promptTokens: prompt.length, seconds });
    await decoder.dispose();
  } finally {
    await engine.dispose();
  }
}

/** The tokens to continue. */
async function readPrompt(
  source: FlagValues<typeof promptFlags>,
  { tokenizer, tokenizerProblem }: LoadedModel,
  output: Output,
): Promise<number[]> {
  if (source.promptTokens) return source.promptTokens;
  if (tokenizer === undefined)
    throw withAdvice(tokenizerProblem!, "Or give token ids, with --prompt-tokens.");
  const text = await promptText(source, output);
  if (text === "" && (source.chat || tokenizer.encode("").length === 0))
    throw new UsageError("The prompt is empty. Give a text with --prompt.", { code: "empty-prompt" });
  if (!source.chat) return promptIds(tokenizer.encode(text), tokenizer.addsEos);
  const rendered = tokenizer.applyChatTemplate([{ role: "user", content: text }], {
    addGenerationPrompt: true,
  });
  return tokenizer.encode(rendered, { addSpecialTokens: false });
}

/** A tokenizer that ends every text would end the prompt before it is continued. */
const promptIds = (ids: number[], addsEos: boolean): number[] => (addsEos ? ids.slice(0, -1) : ids);

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
