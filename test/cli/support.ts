import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll } from "vitest";
import { builtCli } from "../support/built-cli.ts";

export const root = resolve(import.meta.dirname, "../..");
export const tinyLlama = join(root, "models/tiny-llama");
export const vectors = join(root, "test/vectors");

export type Finished = {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** stdout as the one JSON document that it must be. */
  json<T = Record<string, unknown>>(): T;
};

export type RunOptions = {
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Modules for node to load first. */
  readonly imports?: readonly string[];
  readonly cwd?: string;
};

/** Starts the command line as it is shipped; see test/support/build-cli.ts. */
export function start(
  args: readonly string[],
  { env = {}, imports = [], cwd = root }: RunOptions = {},
): ChildProcess {
  const flags = imports.flatMap((module) => ["--import", module]);
  return spawn(process.execPath, [...flags, builtCli, ...args], {
    cwd,
    env: { ...process.env, NO_COLOR: "1", ...env },
  });
}

/** Waits for a process to end, and keeps what it writes. */
export function finish(child: ChildProcess, input = ""): Promise<Finished> {
  const [out, err]: Buffer[][] = [[], []];
  child.stdout!.on("data", (chunk: Buffer) => out!.push(chunk));
  child.stderr!.on("data", (chunk: Buffer) => err!.push(chunk));
  child.stdin!.on("error", () => {}); // commands that read nothing may be gone already
  child.stdin!.end(input);
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => {
      const stdout = Buffer.concat(out!).toString("utf8");
      const stderr = Buffer.concat(err!).toString("utf8");
      resolve({ code, stdout, stderr, json: <T>() => JSON.parse(stdout) as T });
    });
  });
}

/** Runs the command line to its end. */
export const graft = (args: readonly string[], options: RunOptions = {}): Promise<Finished> =>
  finish(start(args, options), options.input);

/** A directory for this file's tests, removed after them. */
export function scratch(): string {
  const directory = mkdtempSync(join(tmpdir(), "graft-cli-"));
  afterAll(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** The error that `--json` prints. */
export type ErrorDocument = { error: { code: string; message: string; details: Record<string, unknown> } };
