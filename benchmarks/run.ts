import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { aims, verdict } from "./aims.ts";
import { titleOf } from "./cases.ts";
import { charts } from "./charts.ts";
import { disagreement } from "./compare.ts";
import { findPython, root } from "./measure.ts";
import { HELP, type Options, readOptions, UsageError } from "./options.ts";
import { notes, performancePage } from "./page.ts";
import {
  emptyResults,
  latestResults,
  mergeResults,
  type Results,
  resultsElsewhere,
  writeResults,
} from "./results.ts";
import { measureRounds } from "./rounds.ts";
import { aimsTable, sections } from "./tables.ts";

const say = (line: string): void => void process.stderr.write(`${line}\n`);
const folder = join(root, "benchmarks", "results");

/** docs/performance.md and its charts, from results that are kept. */
function render(results: Results): void {
  const drawn = charts(results);
  for (const { file, svg } of drawn) writeFileSync(join(root, "docs", file), svg);
  writeFileSync(
    join(root, "docs", "performance.md"),
    performancePage(results, drawn, resultsElsewhere(folder, results)),
  );
  say(`Wrote docs/performance.md${drawn.map(({ file }) => `, docs/${file}`).join("")}.`);
}

async function measureAll(options: Options): Promise<Results> {
  const found = findPython();
  const python = "python" in found ? found.python : undefined;
  if ("reason" in found) say(`No PyTorch to compare with: ${found.reason}. Measuring Graft alone.`);
  if (!python && options.write) throw new UsageError("--write needs PyTorch to compare with.");
  const older = options.write ? latestResults(folder) : undefined;
  let results = emptyResults(new Date().toISOString().slice(0, 10));
  for await (const result of measureRounds({ ...options, python, say })) {
    results = { ...results, cases: { ...results.cases, [result.case.id]: result } };
    if (options.write) writeResults(folder, mergeResults(older, results));
  }
  return results;
}

/** The tables of what was measured. */
function report(results: Results, { quick }: Options): string {
  const aimed = aims.some((aim) => verdict(aim, aim.measured(results)) !== "not measured");
  return [
    ...(quick ? ["Toy models: these numbers only show that the benchmark works."] : []),
    ...(aimed ? [`Aims\n\n${aimsTable(results)}`] : []),
    ...sections(results).map(({ title, body }) => `${title}\n\n${body}`),
    ...[notes(Object.values(results.cases)).trimEnd()].filter((text) => text !== ""),
  ].join("\n\n");
}

async function main(): Promise<void> {
  const options = readOptions();
  const { action, cases, quick, json, write } = options;
  if (action === "help") return console.log(HELP);
  if (action === "list")
    return console.log(
      cases
        .map((one) => `${one.id.padEnd(56)} ${one.parts.join(", ").padEnd(18)} ${titleOf(one)}`)
        .join("\n"),
    );
  if (action === "render") {
    const results = latestResults(folder);
    if (!results) throw new UsageError("There are no results yet: measure with --write.");
    return render(results);
  }
  const results = await measureAll(options);
  // Drawn in any case, so that a quick run goes through all there is.
  const drawn = quick ? charts(results, "toy") : [];
  if (quick && drawn.length === 0) throw new Error("There was nothing to draw.");
  const reached = aims.map((aim) => {
    const value = aim.measured(results);
    return { name: aim.name, least: aim.least, aim: aim.aim, measured: value, reached: verdict(aim, value) };
  });
  console.log(json ? JSON.stringify({ ...results, aims: reached }, null, 2) : report(results, options));
  if (write) render(mergeResults(latestResults(folder), results));
  const different = Object.values(results.cases).some((result) =>
    result.case.contestants.some((contestant) => disagreement(result, contestant) !== undefined),
  );
  if (different) {
    say("bench: contestants did different work; their comparison is left out.");
    process.exitCode = 1;
  }
}

try {
  await main();
} catch (error) {
  if (!(error instanceof Error)) throw error;
  const usage =
    error instanceof UsageError || (error as NodeJS.ErrnoException).code?.startsWith("ERR_PARSE_ARGS");
  say(`bench: ${error.message}${usage ? "\nTry: npm run bench -- --help" : ""}`);
  process.exitCode = usage ? 2 : 1;
}
