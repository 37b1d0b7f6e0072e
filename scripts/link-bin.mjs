// Makes `npx graft` in this checkout run dist/cli/main.js at once; npx would otherwise install the checkout into its cache
// first. Does nothing where the package is installed as a dependency.
import { chmodSync, existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
if (existsSync("src/cli/main.ts") && existsSync("node_modules")) {
  mkdirSync("node_modules/.bin", { recursive: true });
  if (process.platform === "win32")
    writeFileSync("node_modules/.bin/graft.cmd", '@node "%~dp0\\..\\..\\dist\\cli\\main.js" %*\r\n');
  else {
    chmodSync("dist/cli/main.js", 0o755);
    rmSync("node_modules/.bin/graft", { force: true });
    symlinkSync("../../dist/cli/main.js", "node_modules/.bin/graft");
  }
}
