import { Command, CommanderError } from "commander";
import { nearest, UsageError } from "../errors.ts";
import { version } from "../training/version.ts";
import { exitCodes, printReport, reportOf } from "./errors.ts";
import { optionTerm } from "./flags.ts";
import { watchStreams } from "./output.ts";

/** A command's arguments, flags and action. */
export type CommandModule = {
  define(command: Command): void;
  /** Option names in messages, as they are typed on the command line. */
  readonly spell?: (text: string) => string;
};

type Entry = { readonly summary: string; readonly load: () => Promise<CommandModule> };

/** All commands. Each is loaded only when it is asked for, so that none has to wait for the others' imports. */
const commands: Readonly<Record<string, Entry>> = {
  inspect: {
    summary: "show what a model consists of, by the headers of its files",
    load: async () => import("./commands/inspect.ts"),
  },
  select: {
    summary: "show which modules a configuration adapts, and what that costs",
    load: async () => import("./commands/select.ts"),
  },
  explain: {
    summary: "say why modules are, or are not, adapted by a configuration",
    load: async () => import("./commands/explain.ts"),
  },
  synthesize: {
    summary: "find the shortest configuration that adapts exactly the named modules",
    load: async () => import("./commands/synthesize.ts"),
  },
  init: {
    summary: "write a fresh adapter: its configuration and starting weights",
    load: async () => import("./commands/init.ts"),
  },
  train: {
    summary: "fine-tune adapters in the layers you name",
    load: async () => import("./commands/train.ts"),
  },
  eval: {
    summary: "loss and perplexity on data, with or without an adapter",
    load: async () => import("./commands/eval.ts"),
  },
  generate: {
    summary: "continue a text, with or without an adapter",
    load: async () => import("./commands/generate.ts"),
  },
  devices: {
    summary: "list what models can be computed on",
    load: async () => import("./commands/devices.ts"),
  },
};

const overview = `
MODEL is a directory with config.json and safetensors (one file or shards), a .safetensors file
beside its config.json, or org/name for a model on the Hub. inspect and select read no weights, and
take a skeleton (.json, .json.gz) or any model's headers too.

Every command takes --json: one JSON document on stdout, everything else on stderr.
Exit status: 0 success, 2 bad usage or input, 1 failure, 130 interrupted.

Examples:
  graft select models/tiny-llama --target-modules q_proj,v_proj --layers-to-transform 4,5
  graft train models/tiny-llama --data data/devils-dictionary/train.jsonl --output out/dictionary
  graft generate models/tiny-llama --adapter out/dictionary --prompt "Love, n. "
  graft help train`;

/** Runs a command line. Everything that goes wrong is reported here. @returns the exit code. */
export async function runCommandLine(args: readonly string[]): Promise<number> {
  watchStreams();
  const end = args.indexOf("--");
  const json = args.slice(0, end < 0 ? args.length : end).includes("--json");
  let module: CommandModule | undefined;
  process.on("uncaughtException", (error) => {
    const report = reportOf(error, module?.spell);
    printReport(report, { json });
    process.exit(report.exitCode);
  });
  const asked = args[0] === "help" ? args[1] : args.find((arg) => !arg.startsWith("-"));
  try {
    if (args.length === 0) throw new CommanderError(exitCodes.badInput, "graft.noCommand", "");
    if (args[0] === "help" && asked !== undefined) requireCommand(asked);
    const program = createProgram();
    for (const [name, { summary, load }] of Object.entries(commands)) {
      const command = program
        .command(name)
        .summary(summary)
        .description(`${capital(summary)}.`);
      if (name !== asked) continue;
      module = await load();
      module.define(command);
    }
    await program.parseAsync(args, { from: "user" });
    return typeof process.exitCode === "number" ? process.exitCode : exitCodes.success;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return exitCodes.success;
    if (error instanceof CommanderError && error.code === "graft.noCommand") {
      process.stderr.write(`${createProgram(true).helpInformation()}${overview}\n`);
      return exitCodes.badInput;
    }
    const report = reportOf(
      error instanceof CommanderError ? usageError(error, asked) : error,
      module?.spell,
    );
    printReport(report, { json });
    return report.exitCode;
  }
}

function createProgram(listing = false): Command {
  const program = new Command("graft")
    .description(
      "Parameter-efficient fine-tuning: LoRA in exactly the layers you name, in Hugging Face PEFT's files.",
    )
    .version(version, "-V, --version", "print the version")
    .helpOption("-h, --help", "explain graft, or a command")
    .helpCommand("help [command]", "explain a command")
    .addHelpText("after", overview)
    .configureHelp({
      optionTerm,
      subcommandTerm: (command) => command.name(),
      helpWidth: Math.min(process.stdout.columns ?? 110, 110),
    })
    .configureOutput({ writeErr: () => {} }) // errors are reported by runCommandLine
    .exitOverride();
  if (listing)
    for (const [name, { summary }] of Object.entries(commands)) program.command(name).summary(summary);
  return program;
}

function requireCommand(name: string): void {
  if (Object.hasOwn(commands, name)) return;
  const [close] = nearest(name, Object.keys(commands), 1);
  throw new UsageError(
    `there is no command "${name}".${close ? ` Did you mean "${close}"?` : ""} Commands: ${Object.keys(commands).join(", ")}.`,
    { code: "unknown-command", details: { command: name, commands: Object.keys(commands) } },
  );
}

/** Commander's words, as an error of ours: "(Did you mean --data?)" and all. */
function usageError(error: CommanderError, asked: string | undefined): UsageError {
  const message = error.message
    .replace(/^error: /, "")
    .replace(/\n?\(Did you mean (.+)\?\)/, ". Did you mean $1?")
    .replace(/(?<![.?])$/, ".");
  const code = error.code
    .replace(/^commander\./, "")
    .replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  const known = asked !== undefined && Object.hasOwn(commands, asked);
  const hint =
    error.code === "commander.excessArguments"
      ? " Repeat a flag for each of its values (--data a.jsonl --data b.jsonl), and quote texts and patterns."
      : known
        ? ` For all flags and examples: graft help ${asked}.`
        : ` Commands: ${Object.keys(commands).join(", ")}.`;
  return new UsageError(`${message}${hint}`, { code });
}

const capital = (text: string): string => text[0]!.toUpperCase() + text.slice(1);
