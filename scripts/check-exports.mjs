// Checks the built package as a user gets it: every entry loads, selection and checkpoint without ONNX Runtime, and a
// packed copy holds what it needs and nothing of the tests.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";

const problems = [];
const { exports, name } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));

for (const [subpath, target] of Object.entries(exports)) {
  if (typeof target === "string") continue;
  const specifier = subpath === "." ? name : `${name}${subpath.slice(1)}`;
  // A loader hook that refuses ONNX Runtime stands for a machine that does not have it.
  const hook = `export const resolve = (s, c, n) => { if (s.startsWith("onnxruntime")) throw new Error("asked for " + s); return n(s, c); };`;
  const script = `import { register } from "node:module"; register("data:text/javascript," + encodeURIComponent(${JSON.stringify(hook)}));
    const names = Object.keys(await import(${JSON.stringify(specifier)})); if (names.length === 0) throw new Error("no exports");`;
  const { status, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    encoding: "utf8",
  });
  if (status !== 0)
    problems.push(`${specifier} does not load: ${stderr.trim().split("\n").slice(-6).join(" ")}`);
  else if (stderr) problems.push(`${specifier} prints while loading: ${stderr.trim()}`);
}

const npm = process.env.npm_execpath ? [process.execPath, process.env.npm_execpath] : ["npm"];
const packed = spawnSync(
  npm[0],
  [...npm.slice(1), "pack", "--dry-run", "--json", "--ignore-scripts", "--loglevel=error"],
  { encoding: "utf8" },
);
const report = JSON.parse(packed.stdout.slice(packed.stdout.search(/[[{]/)));
const { files } = Array.isArray(report) ? report[0] : (report[name] ?? Object.values(report)[0]);
const paths = files.map(({ path }) => path);
for (const needed of [
  "dist/index.js",
  "dist/index.d.ts",
  "dist/cli/main.js",
  "dist/cli/worker.js",
  "dist/cli/pictures/worker.js",
  "dist/processing/pictures/worker.js",
  "dist/runtime/worker.js",
  "LICENSE",
  "README.md",
])
  if (!paths.includes(needed)) problems.push(`the package lacks ${needed}`);
for (const path of paths)
  if (/^(test|scripts|src|models|data)\//.test(path)) problems.push(`the package holds ${path}`);

for (const problem of problems) console.error(problem);
console.log(`${paths.length} files, ${problems.length} problems`);
process.exit(problems.length === 0 ? 0 : 1);
