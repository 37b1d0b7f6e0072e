import {
  type CheckpointError,
  type GraftError,
  GraphError,
  isGraftError,
  RuntimeFailure,
  type TrainingError,
  UsageError,
} from "../errors.ts";
import { version } from "../training/version.ts";
import { toJson } from "./json.ts";

/** Exit codes: what went wrong decides which. */
export const exitCodes = { success: 0, failure: 1, badInput: 2, interrupted: 130, terminated: 143 } as const;

/** What the operating system refuses for reasons that are not the user's choice of a path. */
const machineTrouble = new Set(["ENOSPC", "EDQUOT", "EIO", "ENOMEM", "EMFILE", "ENFILE"]);

/** Of classes whose other errors mean bad input: what can happen although the input is good. */
const failures: ReadonlySet<string> = new Set([
  "diverged",
  "nonfinite-gradient",
  "nonfinite-logits",
  "network",
  "http-status",
  "timeout",
  "rate-limited",
  "no-space",
  "io",
  "out-of-memory",
  "changed",
  "short-read",
]);

/** What the user can put right in an engine's error. */
const badEngineInput: ReadonlySet<string> = new Set(["unknown-device", "invalid-threads"]);

/** 2 if the usage or the input is bad, 1 if something failed. */
export function exitCodeOf(error: unknown): number {
  if (!isGraftError(error) || error instanceof GraphError) return exitCodes.failure;
  if (error instanceof RuntimeFailure && !badEngineInput.has(error.code)) return exitCodes.failure;
  const systemCode = error.details["errno"] ?? error.details["systemCode"];
  const isFailure =
    failures.has(error.code) || (typeof systemCode === "string" && machineTrouble.has(systemCode));
  return isFailure ? exitCodes.failure : exitCodes.badInput;
}

/** An error as the user gets to see it. */
export type ErrorReport = {
  readonly code: string;
  readonly message: string;
  readonly details: Readonly<Record<string, unknown>>;
  readonly exitCode: number;
};

/** @param spell rewrites option names in messages as they are typed on the command line. */
export function reportOf(error: unknown, spell: (text: string) => string = (text) => text): ErrorReport {
  if (!isGraftError(error)) return bug(error);
  return {
    code: error.code,
    message: spell(error.message),
    details: error.details,
    exitCode: exitCodeOf(error),
  };
}

/** Anything that was not thrown on purpose. */
function bug(error: unknown): ErrorReport {
  const what = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  const stack = error instanceof Error && process.env["GRAFT_DEBUG"] === "1" ? `\n${error.stack}` : "";
  const more = stack === "" ? " Run it again with GRAFT_DEBUG=1 for the place in the code." : "";
  return {
    code: "internal-error",
    message:
      `this is a bug in graft ${version}, not in what you did: ${what}\n` +
      `Please report it with the command and this message.${more}${stack}`,
    details: {},
    exitCode: exitCodes.failure,
  };
}

/** Prints a report: on stderr, and with `json` as a document on stdout too. */
export function printReport({ code, message, details }: ErrorReport, { json }: { json: boolean }): void {
  process.stderr.write(`error: ${message}\n`);
  if (json) process.stdout.write(`${toJson({ error: { code, message, details } })}\n`);
}

/** Bad usage that has several things wrong with it. @throws UsageError if there are problems. */
export function throwProblems(problems: readonly string[]): void {
  if (problems.length === 0) return;
  const message =
    problems.length === 1
      ? `${problems[0]}.`
      : `${problems.length} things are wrong with the command:\n${problems.map((problem) => `- ${problem}.`).join("\n")}`;
  throw new UsageError(message, { code: "bad-usage", details: { problems } });
}

/** The same error with something added to its message. */
export function withAdvice(error: GraftError, advice: string): GraftError {
  const { code, details } = error;
  const Class = error.constructor as typeof CheckpointError | typeof TrainingError;
  return new Class(`${error.message} ${advice}`, { code, details, cause: error });
}
