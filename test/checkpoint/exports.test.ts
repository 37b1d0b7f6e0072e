import { readFileSync } from "node:fs";
import { isBuiltin } from "node:module";
import { expect, test } from "vitest";
import * as checkpoint from "../../src/checkpoint/index.ts";
import * as node from "../../src/checkpoint/node.ts";

test("public names", () => {
  expect(Object.keys(checkpoint).sort()).toMatchInlineSnapshot(`
    [
      "blobSource",
      "blobStore",
      "bytesSource",
      "hubStore",
      "openStore",
      "readCheckpoint",
      "readJson",
      "readJsonIfPresent",
      "readSafetensors",
      "readTensor",
      "readTensorAsFloat32",
      "safetensorsChunks",
      "serializeSafetensors",
      "urlStore",
    ]
  `);
  expect(Object.keys(node).sort()).toMatchInlineSnapshot(`
    [
      "directoryStore",
      "fileSource",
      "makeDirectory",
      "writeDirectoryAtomic",
      "writeFileAtomic",
      "writeSafetensors",
    ]
  `);
});

test("nothing that loads with the entry needs Node", () => {
  const statically = /^(?:import|export)[^;]*?from\s+"([^"]+)"/gm;
  const seen = new Set<string>();
  const visit = (url: URL) => {
    if (seen.has(url.pathname)) return;
    seen.add(url.pathname);
    for (const [, specifier] of readFileSync(url, "utf8").matchAll(statically)) {
      expect(isBuiltin(specifier!), `${url.pathname} imports ${specifier}`).toBe(false);
      if (specifier!.startsWith(".")) visit(new URL(specifier!, url));
    }
  };
  visit(new URL("../../src/checkpoint/index.ts", import.meta.url));
  expect(seen.size).toBeGreaterThan(15);
  expect([...seen].filter((path) => path.endsWith("node.ts"))).toEqual([]);
});
