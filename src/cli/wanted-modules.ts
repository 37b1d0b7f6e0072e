import { readFile } from "node:fs/promises";
import { listProblems, UsageError } from "../errors.ts";

/** What a file of names asks for: per module its rank and alpha, where the file gives them. */
export type WantedModules = ReadonlyMap<string, { readonly r?: number; readonly alpha?: number }>;

/**
 * Reads module names: one per line (blank lines and those that begin with `#` are skipped), a JSON array of names, or a
 * JSON object from name to rank or `{"r": …, "lora_alpha": …}`.
 * @param file a path, or `-` for standard input.
 * @throws UsageError `unreadable-file`, `invalid-names` listing all that is wrong with it, or `no-names`.
 */
export async function readWantedModules(file: string): Promise<WantedModules> {
  const shown = file === "-" ? "standard input" : file;
  const text = await readText(file, shown);
  const wanted = /^\s*[[{]/.test(text) ? fromJson(text, shown) : fromLines(text);
  if (wanted.size === 0)
    throw new UsageError(`${shown} names no module. Write one name per line, or a JSON array or object.`, {
      code: "no-names",
      details: { file },
    });
  return wanted;
}

async function readText(file: string, shown: string): Promise<string> {
  try {
    const bytes = file === "-" ? await readStdin() : await readFile(file);
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    const reason =
      cause instanceof TypeError
        ? "it is not UTF-8 text"
        : (reasons[(cause as NodeJS.ErrnoException).code ?? ""] ?? (cause as Error).message);
    throw new UsageError(`${shown} cannot be read: ${reason}. --names takes a file of module names, or -.`, {
      code: "unreadable-file",
      details: { file },
      cause,
    });
  }
}

const reasons: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file",
  EISDIR: "it is a directory",
  EACCES: "permission is denied",
};

async function readStdin(): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

function fromLines(text: string): WantedModules {
  const names = text
    .split(/\r\n|\n|\r/)
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(names.map((name) => [name, {}]));
}

function fromJson(text: string, shown: string): WantedModules {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw invalid(shown, [`it begins like JSON, but is none: ${(cause as Error).message}`], cause);
  }
  const problems: string[] = [];
  const wanted = new Map<string, { r?: number; alpha?: number }>();
  if (Array.isArray(json))
    json.forEach((name: unknown, i) => {
      if (typeof name === "string") wanted.set(name, {});
      else problems.push(`entry ${i + 1} must be a name, got ${show(name)}`);
    });
  else
    for (const [name, value] of Object.entries(json as Record<string, unknown>))
      wanted.set(name, readValue(name, value, problems));
  if (problems.length > 0) throw invalid(shown, problems);
  return wanted;
}

function readValue(name: string, value: unknown, problems: string[]): { r?: number; alpha?: number } {
  const at = JSON.stringify(name);
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    if (isRank(value)) return { r: value };
    problems.push(
      `${at} must have a rank (a whole number of at least 1) or {"r", "lora_alpha"}, got ${show(value)}`,
    );
    return {};
  }
  const { r, lora_alpha: alpha, ...others } = value as Record<string, unknown>;
  for (const key of Object.keys(others))
    problems.push(`${at}: there is no ${JSON.stringify(key)}, only "r" and "lora_alpha"`);
  if (r !== undefined && !isRank(r))
    problems.push(`${at}: "r" must be a whole number of at least 1, got ${show(r)}`);
  if (alpha !== undefined && typeof alpha !== "number")
    problems.push(`${at}: "lora_alpha" must be a number, got ${show(alpha)}`);
  return { ...(isRank(r) ? { r } : {}), ...(typeof alpha === "number" ? { alpha } : {}) };
}

const isRank = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 1;

const show = (value: unknown): string => (JSON.stringify(value) ?? "nothing").slice(0, 60);

const invalid = (shown: string, problems: readonly string[], cause?: unknown): UsageError =>
  new UsageError(`${shown}: ${listProblems(problems)}.`, {
    code: "invalid-names",
    details: { problems },
    cause,
  });
