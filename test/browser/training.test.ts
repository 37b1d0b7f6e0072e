import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import * as ort from "onnxruntime-node";
import { build } from "tsdown";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { DType, Tensor } from "../../src/tensor/index.ts";
import { type OpenPage, openPage } from "./browser-page.ts";
import { type Bridge, fromBase64, received, sent } from "./remote-engine.ts";
import type { Trained } from "./training-page.ts";

let opened: OpenPage;
let bundled: string;
const sessions = new Map<number, ort.InferenceSession>();

/** Runs a page's graphs here: there is no engine for browsers yet. */
const bridge: Bridge = {
  async createSession(model, weights) {
    const session = await ort.InferenceSession.create(fromBase64(model), {
      externalData: weights.map(({ location, base64 }) => ({ path: location, data: fromBase64(base64) })),
      intraOpNumThreads: 1,
      logSeverityLevel: 4,
    });
    const id = sessions.size + 1;
    sessions.set(id, session);
    return id;
  },
  async run(id, feeds) {
    const tensors = Object.entries(feeds).map(([name, value]) => {
      const { dtype, shape, data } = received(value);
      return [name, new ort.Tensor(dtype as "float32", data as Float32Array, shape)] as const;
    });
    const outputs = await sessions.get(id)!.run(Object.fromEntries(tensors));
    const results = Object.entries(outputs).map(([name, { type, dims, data }]) => {
      const result = { dtype: type as DType, shape: dims, data } as Tensor;
      return [name, sent(result)] as const;
    });
    return Object.fromEntries(results);
  },
  closeSession: (id) => sessions.get(id)!.release(),
};

beforeAll(async () => {
  bundled = mkdtempSync(join(tmpdir(), "graft-bundled-"));
  await build({
    config: false,
    entry: fileURLToPath(new URL("training-page.ts", import.meta.url)),
    outDir: bundled,
    platform: "browser",
    format: "esm",
    fixedExtension: false,
    dts: false,
    logLevel: "error",
    deps: { neverBundle: [/^node:/, /^onnxruntime-/, "sharp"], alwaysBundle: [/^[@a-z]/] },
  });
  opened = await openPage({ "/bundled/": bundled });
  for (const [name, work] of Object.entries(bridge)) await opened.page.exposeFunction(name, work);
});

afterAll(async () => {
  await opened?.close();
  rmSync(bundled, { recursive: true, force: true });
});

const train = (options: object): Promise<Trained> =>
  opened.page.evaluate(`(async () => {
    const { train } = await import("/bundled/training-page.js");
    return train(window, location.origin + "/test/vectors/models/llama-qv/model", ${JSON.stringify(options)});
  })()`);

test("a page trains with the prefix cache in memory: the losses are those without, and the frozen part runs once", async () => {
  const off = await train({ prefixCache: "off" });
  expect(off.losses).toHaveLength(6);
  expect(off.prefixCache).toBeUndefined();
  const memory = await train({ prefixCache: "memory" });
  expect(memory.prefixCache).toMatchObject({ mode: "memory" });
  expect(memory.prefixRuns).toBe(3);
  for (const [i, loss] of off.losses.entries())
    expect(Math.abs(memory.losses[i]! / loss - 1), `step ${i + 1}`).toBeLessThan(1e-6);
  expect(opened.requests.filter(({ url }) => url.includes("node_modules"))).toEqual([]);
});
