import { afterAll, beforeAll, expect, test } from "vitest";
import { type OpenPage, openPage } from "./browser-page.ts";

let opened: OpenPage;
beforeAll(async () => {
  opened = await openPage();
});
afterAll(() => opened?.close());

// Given as text, so that the test runner does not rewrite its imports.
const inPage = (body: string): Promise<Record<string, unknown>> =>
  opened.page.evaluate(`(async () => {${body}})()`);

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
  opened.requests.length = 0;
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
  expect(
    opened.requests.some(({ url, range }) => url.endsWith("model.safetensors") && range !== undefined),
  ).toBe(true);
});

test("nothing of ONNX Runtime or Node was asked for", () => {
  expect(opened.requests.filter(({ url }) => /onnxruntime|node_modules|\/node\.js$/.test(url))).toEqual([]);
});
