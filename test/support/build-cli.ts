import { readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "tsdown";
import configs from "../../tsdown.config.ts";
import { builtCliFolder } from "./built-cli.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const stamp = join(builtCliFolder, "built");

/** When the newest of the sources was written, in milliseconds. */
function newest(): number {
  const sources = readdirSync(join(root, "src"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
  const others = ["tsdown.config.ts", "package.json", "package-lock.json"].map((name) => join(root, name));
  return Math.max(...[...sources, ...others].map((path) => statSync(path).mtimeMs));
}

/**
 * Bundles the command line from its sources, as it is shipped, where they have changed since the last time: it starts several
 * times as fast as through a compiler, and tests start it hundreds of times.
 */
export async function setup(): Promise<void> {
  const built = statSync(stamp, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (built > newest()) return;
  const started = new Date();
  const cli = configs.find(({ entry }) => typeof entry === "object" && "cli/main" in entry);
  if (cli === undefined) throw new Error("tsdown.config.ts has no entry cli/main.");
  rmSync(builtCliFolder, { recursive: true, force: true });
  await build({ ...cli, cwd: root, config: false, outDir: builtCliFolder, logLevel: "error" });
  writeFileSync(stamp, started.toISOString());
}
