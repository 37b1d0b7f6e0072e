import { toJson } from "./json.ts";

export type OutputOptions = {
  /** One JSON document on stdout; everything else goes to stderr. */
  readonly json?: boolean | undefined;
  /** No notes and no progress; warnings and errors remain. */
  readonly quiet?: boolean | undefined;
};

/** Where a command's words go: results to stdout, everything said on the way to stderr. */
export class Output {
  readonly json: boolean;
  readonly quiet: boolean;
  /** Called before a line is written to stderr, so that a progress bar can make room. */
  beforeNote: (() => void) | undefined;

  constructor({ json = false, quiet = false }: OutputOptions = {}) {
    this.json = json;
    this.quiet = quiet;
  }

  /** True once nobody reads stdout any more, as after `| head`. */
  get closed(): boolean {
    return stdoutClosed;
  }

  /** Something worth knowing on the way. */
  note(line: string): void {
    if (!this.quiet) this.toStderr(line);
  }

  warn(message: string): void {
    this.toStderr(`warning: ${message}`);
  }

  /** A part of the result, for people. */
  print(line: string): void {
    this.write(`${line}\n`);
  }

  /** As `print`, without a line break. */
  write(text: string): void {
    if (!this.json && !stdoutClosed) process.stdout.write(text);
  }

  /** The result, for programs. */
  document(value: unknown): void {
    if (this.json && !stdoutClosed) process.stdout.write(`${toJson(value)}\n`);
  }

  private toStderr(line: string): void {
    this.beforeNote?.();
    process.stderr.write(`${line}\n`);
  }
}

let stdoutClosed = false;

/** A reader that goes away is no error: what it does not want is not written. */
export function watchStreams(): void {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    stdoutClosed = true;
  });
  process.stderr.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
  });
}
