// npm run test:browser: loads the built package in a real browser. Needs Chromium; says so and stops where there is none.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { findChromium } from "./chromium.mjs";

/** In CI on Debian, as root, Chromium can be installed. */
function install() {
  if (!process.env.CI || process.getuid?.() !== 0 || !existsSync("/usr/bin/apt-get")) return;
  const quiet = { stdio: ["ignore", "ignore", "inherit"] };
  spawnSync("apt-get", ["update", "-qq"], quiet);
  spawnSync("apt-get", ["install", "-y", "-qq", "chromium"], quiet);
}

if (!findChromium()) install();
const chromium = findChromium();
if (!chromium) {
  console.log("browser tests skipped: no Chromium on PATH (set GRAFT_CHROMIUM to its path)");
  process.exit(0);
}
const vitest = new URL("../node_modules/vitest/vitest.mjs", import.meta.url).pathname;
const { status } = spawnSync(process.execPath, [vitest, "run", "--config", "vitest.browser.config.ts"], {
  stdio: "inherit",
  env: { ...process.env, GRAFT_CHROMIUM: chromium },
});
process.exit(status ?? 1);
