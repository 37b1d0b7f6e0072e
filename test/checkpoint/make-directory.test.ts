import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { makeDirectory } from "../../src/checkpoint/node.ts";

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "graft-mkdir-"));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

test("makes what is missing and says where it began", async () => {
  expect(await makeDirectory(join(root, "a", "b", "c"))).toBe(join(root, "a"));
  expect(existsSync(join(root, "a", "b", "c"))).toBe(true);
  expect(await makeDirectory(join(root, "a", "b"))).toBeUndefined();
});

test("a file in the way is an error of the system", async () => {
  writeFileSync(join(root, "file"), "");
  await expect(makeDirectory(join(root, "file"))).rejects.toMatchObject({ code: "EEXIST" });
  await expect(makeDirectory(join(root, "file", "below"))).rejects.toMatchObject({ code: "ENOTDIR" });
});

test.skipIf(process.platform !== "linux")(
  "ends where the system refuses to say why (needs /proc)",
  async () => {
    await expect(makeDirectory("/proc/nothing/out")).rejects.toMatchObject({ code: "ENOENT" });
  },
);
