/**
 * Runs the commands in documents and compares what they print with what the document says.
 *
 *     node scripts/run-examples.mjs [--update] [FILE.md…]        default: those of docs, docs/examples
 *                                                                           and of the folders in examples
 *
 * A ```console block holds commands, each after "$ " (continued after a backslash), and below each what it prints, stdout
 * and stderr together. A line "…" stands for any lines. --update writes what is printed into the document instead.
 * Commands run in the repository's root, in sh, with graft on the PATH. Exit status 1 if anything differs.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { delimiter, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const args = process.argv.slice(2);
const update = args.includes("--update");
const named = args.filter((arg) => arg !== "--update");

const files =
  named.length > 0
    ? named
    : [
        "docs",
        "docs/examples",
        ...readdirSync(join(root, "examples")).map((name) => join("examples", name)),
      ].flatMap((folder) =>
        readdirSync(join(root, folder))
          .filter((name) => name.endsWith(".md"))
          .map((name) => join(root, folder, name)),
      );

mkdirSync(join(root, "out"), { recursive: true });

/** @returns {{ command: string, lines: string[] }[]} commands of a block, with the lines below each */
function parse(block) {
  const steps = [];
  let open = false;
  for (const line of block) {
    if (line.startsWith("$ ")) steps.push({ command: line.slice(2), lines: [] });
    else if (open) steps.at(-1).command += `\n${line}`;
    else if (steps.length === 0) throw new Error(`a console block begins with "$ ", not with: ${line}`);
    else steps.at(-1).lines.push(line);
    open = (open || line.startsWith("$ ")) && line.endsWith("\\");
  }
  return steps;
}

function run(command) {
  const bin = join(root, "node_modules/.bin");
  const { stdout, error } = spawnSync("sh", ["-c", `{ ${command}\n} 2>&1`], {
    cwd: root,
    encoding: "utf8",
    timeout: 120_000,
    env: { ...process.env, NO_COLOR: "1", PATH: `${bin}${delimiter}${process.env.PATH}` },
  });
  if (error) throw error;
  const lines = stdout.split("\n").map((line) => line.trimEnd());
  while (lines.at(-1) === "") lines.pop();
  return lines;
}

/** Does `actual` fit `expected`, in which "…" stands for any number of lines? */
function fits(expected, actual) {
  if (expected.length === 0) return actual.length === 0;
  const [first, ...rest] = expected;
  if (first === "…") return rest.length === 0 || actual.some((_, i) => fits(rest, actual.slice(i)));
  return actual.length > 0 && actual[0] === first && fits(rest, actual.slice(1));
}

let steps = 0;
let failures = 0;

for (const file of files) {
  const written = [];
  const lines = readFileSync(file, "utf8").split("\n");
  for (let i = 0; i < lines.length; i++) {
    written.push(lines[i]);
    if (lines[i] !== "```console") continue;
    const start = i + 1;
    const end = lines.indexOf("```", start);
    if (end < 0) throw new Error(`${file}:${start}: the block does not end`);
    for (const { command, lines: expected } of parse(lines.slice(start, end))) {
      steps++;
      const actual = run(command);
      const keep = fits(expected, actual);
      written.push(...`$ ${command}`.split("\n"), ...(keep ? expected : actual));
      if (keep || update) continue;
      failures++;
      console.log(`${relative(root, file)}:${start}: $ ${command}`);
      console.log("  the document says:", ...expected.map((line) => `\n    ${line}`));
      console.log("  but it prints:", ...actual.map((line) => `\n    ${line}`));
    }
    i = end - 1;
  }
  if (update) writeFileSync(file, written.join("\n"));
}

console.log(`${files.length} documents, ${steps} commands, ${failures} print something else`);
process.exitCode = failures > 0 ? 1 : 0;
