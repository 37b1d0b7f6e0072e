import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import * as checkpoint from "../src/checkpoint/index.ts";
import * as main from "../src/index.ts";
import * as node from "../src/node.ts";
import * as selection from "../src/selection/index.ts";
import { version } from "../src/training/version.ts";

const names = (module: object): string[] => Object.keys(module).sort();

// What users import. A change here is a change of the public API: say so in CHANGELOG.md.
test("public exports", () => {
  expect({
    ".": names(main),
    "./selection": names(selection),
    "./checkpoint": names(checkpoint),
    "./node": names(node),
  }).toMatchSnapshot();
});

test("package.json lists the entries above, and the version that saved runs carry", () => {
  const manifest = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
  expect(Object.keys(manifest.exports)).toEqual([
    ".",
    "./selection",
    "./checkpoint",
    "./node",
    "./schema.json",
    "./package.json",
  ]);
  expect(manifest.version).toBe(version);
});
