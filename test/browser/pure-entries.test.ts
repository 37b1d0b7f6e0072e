import { createReadStream, mkdtempSync, rmSync, statSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { extname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { type BrowserContext, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";

const root = resolve(fileURLToPath(new URL("../..", import.meta.url)));
const types: Record<string, string> = {
  ".js": "text/javascript",
  ".html": "text/html",
  ".json": "application/json",
};
const flags =
  "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync";

let server: Server;
let context: BrowserContext;
let page: Page;
let profile: string;
const requests: { url: string; range: string | undefined }[] = [];

beforeAll(async () => {
  server = createServer((request, response) => {
    const { pathname } = new URL(request.url!, "http://localhost");
    requests.push({ url: pathname, range: request.headers.range });
    if (pathname === "/")
      return void response.setHeader("content-type", "text/html").end("<!doctype html><title>graft</title>");
    const path = join(root, pathname);
    const size = statSync(path, { throwIfNoEntry: false })?.size;
    if (size === undefined) return void response.writeHead(404).end();
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const [start, end] = range
      ? [Number(range[1]), Math.min(range[2] ? Number(range[2]) : size - 1, size - 1)]
      : [0, size - 1];
    response.writeHead(range ? 206 : 200, {
      "content-type": types[extname(path)] ?? "application/octet-stream",
      "content-length": end - start + 1,
      "accept-ranges": "bytes",
      ...(range && { "content-range": `bytes ${start}-${end}/${size}` }),
    });
    createReadStream(path, { start, end }).pipe(response);
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  profile = mkdtempSync(join(tmpdir(), "graft-browser-"));
  context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env["GRAFT_CHROMIUM"]!,
    args: flags.split(" "),
  });
  page = await context.newPage();
  await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
});

afterAll(async () => {
  await context?.close();
  server?.close();
  if (profile) rmSync(profile, { recursive: true, force: true });
});

// Given as text, so that the test runner does not rewrite its imports.
const inPage = (body: string): Promise<Record<string, unknown>> => page.evaluate(`(async () => {${body}})()`);

test("graftjs/selection loads without ONNX Runtime and selects as PEFT does", async () => {
  const result = await inPage(`
    const { selectTargets, parseSkeleton } = await import("/dist/selection/index.js");
    const skeleton = await fetch("/test/vectors/skeletons/llama-3.2-1b.json.gz");
    const text = await new Response(skeleton.body.pipeThrough(new DecompressionStream("gzip"))).text();
    const tree = parseSkeleton(JSON.parse(text));
    const { targets, trainableParameters } = selectTargets(tree, { r: 8, targetModules: ".*layers[.]1[.].*(q|v)_proj" });
    return { names: targets.map((target) => target.name), trainableParameters };`);
  expect(result).toEqual({
    names: ["model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.v_proj"],
    trainableParameters: 8 * (2048 + 2048 + 2048 + 512),
  });
});

test("graftjs/selection compiles groups, explains, synthesizes and estimates in a page", async () => {
  const result = await inPage(`
    const { compileSelection, estimateCost, explain, inferTree, lintSelection, parseSkeleton, synthesize } =
      await import("/dist/selection/index.js");
    const skeleton = await fetch("/test/vectors/skeletons/florence2-base.json.gz");
    const text = await new Response(skeleton.body.pipeThrough(new DecompressionStream("gzip"))).text();
    const json = JSON.parse(text);
    const tree = parseSkeleton(json);
    const groups = [{ targetModules: ["q_proj", "v_proj"], layers: { "encoder.layers": "-2:", "decoder.layers": ":" } }];
    const { config, selection } = compileSelection(tree, { groups });
    const names = selection.targets.map((target) => target.name);
    const [why] = explain(tree, config, ["model.language_model.encoder.layers.3.self_attn.q_proj"]);
    const inferred = inferTree(json.state_dict.map(([name, shape, dtype]) => ({ name, shape, dtype })), json.config);
    return {
      regex: config.targetModules,
      count: names.length,
      again: synthesize(tree, names).config.targetModules,
      selected: why.selected,
      warnings: lintSelection(tree, { targetModules: ["q_porj", "v_proj"] }).map(({ code }) => code),
      saved: estimateCost(tree, selection).saved.backwardShare > 0.1,
      inferred: inferred.tree.modules.some(({ name }) => name === names[0]),
    };`);
  const regex = String.raw`.*\.(encoder\.layers\.[45]|decoder)\..*\.(q_proj|v_proj)`;
  expect(result).toEqual({
    regex,
    count: 28,
    again: regex,
    selected: false,
    warnings: ["entry-matched-nothing"],
    saved: true,
    inferred: true,
  });
});

test("graftjs/checkpoint reads a model by range requests and from a Blob", async () => {
  requests.length = 0;
  const result = await inPage(`
    const { openStore, readCheckpoint, readTensorAsFloat32, blobStore } = await import("/dist/checkpoint/index.js");
    const url = location.origin + "/test/vectors/models/llama-qv/model";
    const norm = async ({ tensors }) => [...(await readTensorAsFloat32(tensors.get("model.norm.weight"))).data];
    const remote = await readCheckpoint(await openStore(url));
    const fromUrl = await norm(remote);
    const blob = await (await fetch(url + "/model.safetensors")).blob();
    const fromBlob = await norm(await readCheckpoint(blobStore(new Map([["model.safetensors", blob]]))));
    return { fromUrl, fromBlob, count: remote.tensors.size };`);
  expect(result["count"]).toBeGreaterThan(5);
  expect(result["fromUrl"]).toEqual(result["fromBlob"]);
  expect(requests.some(({ url, range }) => url.endsWith("model.safetensors") && range !== undefined)).toBe(
    true,
  );
});

test("nothing of ONNX Runtime or Node was asked for", () => {
  expect(requests.filter(({ url }) => /onnxruntime|node_modules|\/node\.js$/.test(url))).toEqual([]);
});
