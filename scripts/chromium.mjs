// Where Chromium is, or undefined: $GRAFT_CHROMIUM, else the first of the usual names on PATH.
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";

const names = ["chromium", "chromium-browser", "google-chrome", "chrome"];

export function findChromium() {
  if (process.env.GRAFT_CHROMIUM) return process.env.GRAFT_CHROMIUM;
  const folders = (process.env.PATH ?? "").split(delimiter);
  return folders
    .flatMap((folder) => names.map((name) => join(folder, name)))
    .find((path) => existsSync(path));
}
