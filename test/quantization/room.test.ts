import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { hold, makeRoom } from "../../src/quantization/room/node.ts";

let cache: string;
beforeEach(() => {
  cache = mkdtempSync(join(tmpdir(), "graft-room-"));
});
afterEach(() => rmSync(cache, { recursive: true }));

const nameOf = (digit: string): string => digit.repeat(32);

/** A folder of 100 bytes that was last used some days ago. */
function folder(digit: string, days: number, files: Record<string, string> = {}): string {
  const path = join(cache, nameOf(digit));
  mkdirSync(path);
  for (const [name, content] of Object.entries({ codes: "x".repeat(100), ...files }))
    writeFileSync(join(path, name), content);
  const then = new Date(Date.now() - days * 24 * 3600 * 1000);
  for (const name of readdirSync(path)) utimesSync(join(path, name), then, then);
  utimesSync(path, then, then);
  return path;
}
const left = (): string[] =>
  readdirSync(cache)
    .map((name) => name[0]!)
    .sort();

test("the least recently used folders go, until the others fit", async () => {
  folder("a", 1);
  folder("b", 3);
  folder("c", 2);
  await makeRoom(cache, 300);
  expect(left()).toEqual(["a", "b", "c"]);
  await makeRoom(cache, 299);
  expect(left()).toEqual(["a", "c"]);
  await makeRoom(cache, 100);
  expect(left()).toEqual(["a"]);
});

test("a folder that is used counts as the latest, and stays", async () => {
  folder("a", 1);
  await hold(folder("b", 3));
  await makeRoom(cache, 0);
  expect(left()).toEqual(["b"]);
});

test("what another process uses stays for as long as it runs", async () => {
  const path = folder("a", 1);
  const module = fileURLToPath(new URL("../../src/quantization/room/node.ts", import.meta.url));
  const code = `const { hold } = await import(${JSON.stringify(module)});
    await hold(${JSON.stringify(path)}); console.log("held"); process.stdin.on("data", () => process.exit(0));`;
  const child = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", code], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  await once(child.stdout, "data");
  await makeRoom(cache, 0);
  expect(left()).toEqual(["a"]);
  child.stdin.write("end\n");
  await once(child, "exit");
  expect(readdirSync(path)).toEqual(["codes"]);
  await makeRoom(cache, 0);
  expect(left()).toEqual([]);
});

test("a process that was killed holds nothing, nor does one of another machine for ever", async () => {
  const gone = 2 ** 22 + 1; // beyond what Linux gives, and so nobody's
  folder("a", 1, { [`used-by-${gone}@${hostname()}`]: "" });
  folder("b", 1, { "used-by-1@elsewhere": "" });
  folder("c", 8, { "used-by-1@elsewhere": "" });
  await makeRoom(cache, 0);
  expect(left()).toEqual(["b"]);
});

test("nothing is removed that the cache did not make, but for what an earlier removal left", async () => {
  const other = join(cache, "notes");
  mkdirSync(other);
  writeFileSync(join(other, "file"), "x".repeat(1000));
  mkdirSync(join(cache, ".removed-0123"));
  await makeRoom(cache, 0);
  expect(existsSync(join(other, "file"))).toBe(true);
  expect(left()).toEqual(["n"]);
});

test("there need be no cache, and none that can be written to", async () => {
  await expect(makeRoom(join(cache, "none"), 0)).resolves.toBeUndefined();
  writeFileSync(join(cache, "file"), "");
  await expect(hold(join(cache, "file"))).resolves.toBeUndefined();
});
