// Installs what is missing in a checkout, so that `npm test` and `npm run demo` work right after cloning.
import { spawnSync } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
process.chdir(root);

const [major, minor] = process.versions.node.split(".").map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`Graft needs Node 20.19 or newer; this is ${process.version}.`);
  process.exit(1);
}

const run = (...args) => {
  // npm's own path, so that the npm that started this script is used, on Windows too.
  const [command, first] = process.env.npm_execpath
    ? [process.execPath, [process.env.npm_execpath]]
    : ["npm", []];
  const { status } = spawnSync(command, [...first, ...args], { stdio: "inherit", shell: command === "npm" });
  if (status !== 0) {
    console.error(`npm ${args.join(" ")} failed.`);
    process.exit(status ?? 1);
  }
};

const modified = (path) => (existsSync(path) ? statSync(path).mtimeMs : Number.NEGATIVE_INFINITY);

if (modified("node_modules/.package-lock.json") < modified("package-lock.json")) {
  console.error("Installing dependencies …");
  run("ci", "--no-fund", "--no-audit", "--loglevel=error"); // builds dist/ too, through "prepare"
} else if (!existsSync("dist/cli/main.js")) run("run", "build");
