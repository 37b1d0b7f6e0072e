import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { openHub } from "../../src/checkpoint/hub/node.ts";
import {
  hubStore,
  openStore,
  readCheckpoint,
  readJson,
  readTensor,
  serializeSafetensors,
} from "../../src/checkpoint/index.ts";
import { commit, type HubFile, serveHub } from "../support/hub-server.ts";
import { f32, failure } from "./helpers.ts";

const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
const weight = f32(...Array.from({ length: 50_000 }, (_, i) => i));
const model = serializeSafetensors({ weight, bias: f32(1, 2, 3) });

/** Many tensors, so that the header is long, in a file of gigabytes that is nowhere. */
function hugeFile(tensors: number): { file: HubFile; headerLength: number } {
  const size = 1_000_000;
  const header = Object.fromEntries(
    Array.from({ length: tensors }, (_, i) => [
      `model.layers.${i}.weight`,
      { dtype: "F32", shape: [size], data_offsets: [4 * size * i, 4 * size * (i + 1)] },
    ]),
  );
  const text = json(header);
  const head = new Uint8Array(8 + text.length);
  new DataView(head.buffer).setBigUint64(0, BigInt(text.length), true);
  head.set(text, 8);
  return { file: { size: head.length + 4 * size * tensors, head }, headerLength: head.length };
}

const small = { "config.json": json({ model_type: "llama" }), "model.safetensors": model };

describe("a model on the Hub", () => {
  test.each([
    ["in Git LFS", { lfs: /\.safetensors$/ }],
    ["in Xet storage", { xet: /\.safetensors$/ }],
    ["in Git", { lfs: /(?!)/ }],
  ])("weights %s: config.json, headers and tensors", async (_, behaviour) => {
    const hub = await serveHub({ "org/name": small }, behaviour);
    const store = hubStore("org/name", { endpoint: hub.endpoint });
    expect(store.name).toBe("hf://org/name");
    expect(await readJson(store, "config.json")).toEqual({ model_type: "llama" });
    const { tensors } = await readCheckpoint(store);
    expect(hub.sent.get("model.safetensors")).toBeLessThan(100_002);
    expect(await readTensor(tensors.get("weight")!)).toEqual(weight);
    expect(hub.seen.filter((line) => line.includes("xet-"))).toEqual([]);
  });

  test("of gigabytes of weights only the headers are sent", async () => {
    const { file, headerLength } = hugeFile(2_000);
    const shards = Array.from({ length: 3 }, (_, i) => `model-0000${i + 1}-of-00003.safetensors`);
    const renamed = shards.map((_, i) => hugeShard(file, i));
    const index = {
      weight_map: Object.fromEntries(renamed.flatMap(({ names }, i) => names.map((n) => [n, shards[i]!]))),
    };
    const files = Object.fromEntries(shards.map((shard, i) => [shard, renamed[i]!.file]));
    const hub = await serveHub({ "org/huge": { ...files, "model.safetensors.index.json": json(index) } });
    const { tensors } = await readCheckpoint(hubStore("org/huge", { endpoint: hub.endpoint }));
    expect(tensors.size).toBe(6_000);
    const sizes = shards.map((shard) => hub.sent.get(shard)!);
    expect((file as { size: number }).size).toBeGreaterThan(7e9);
    // One byte to learn the size; 100,000 in the hope that the header is among them; the rest of it.
    for (const size of sizes) expect(size).toBeLessThanOrEqual(headerLength + 3 * 2_000 + 1);
  });

  test("a revision is asked for, and what is read later is of the same commit", async () => {
    const hub = await serveHub({ "org/name": small });
    const store = hubStore("org/name@v1", { endpoint: hub.endpoint });
    await readJson(store, "config.json");
    await readCheckpoint(store);
    expect(hub.seen[0]).toBe("GET /org/name/resolve/v1/config.json bytes=0-0");
    expect(hub.seen.slice(2).every((line) => !line.includes("/v1/"))).toBe(true);
    expect(hub.seen[2]).toContain(`/resolve/${commit}/model.safetensors`);
  });

  test("a token goes to the Hub, and not to the storage that it redirects to", async () => {
    const hub = await serveHub({ "org/name": small }, { token: "hf_secret" });
    const store = hubStore("org/name", { endpoint: hub.endpoint, accessToken: "hf_secret" });
    expect((await readCheckpoint(store)).tensors.size).toBe(2);
    hub.seen.forEach((line, i) => {
      expect(hub.authorizations[i]).toBe(line.includes("/storage/") ? undefined : "Bearer hf_secret");
    });
  });

  test("a server that ignores Range sends no more than is needed", async () => {
    const { file, headerLength } = hugeFile(10);
    const hub = await serveHub(
      { "org/name": { "model.safetensors": file, "config.json": json({ a: 1 }) } },
      {
        ignoreRange: true,
        lfs: /(?!)/,
        intercept: (request, response) => {
          if (!request.url!.endsWith(".safetensors")) return false;
          const { size, head } = file as { size: number; head: Uint8Array };
          response.writeHead(200, { "content-length": size, etag: '"x"' });
          response.write(head);
          const more = setInterval(() => response.write(new Uint8Array(65_536)), 1);
          response.on("close", () => clearInterval(more));
          return true;
        },
      },
    );
    const store = hubStore("org/name", { endpoint: hub.endpoint });
    expect(await readJson(store, "config.json")).toEqual({ a: 1 });
    const { tensors } = await readCheckpoint(store);
    expect([tensors.size, headerLength < 2_000]).toEqual([10, true]);
    const last = tensors.get("model.layers.9.weight")!;
    expect((await failure(readTensor(last))).code).toBe("range-ignored");
  });

  test("an empty file, and a file in a folder", async () => {
    const files = { "empty.json": new Uint8Array(0), "a b/c.json": json([1]) };
    const store = hubStore("org/name", { endpoint: (await serveHub({ "org/name": files })).endpoint });
    expect((await store.open("empty.json"))!.size).toBe(0);
    expect(await readJson(store, "a b/c.json")).toEqual([1]);
    expect(await store.open("nothing.json")).toBeUndefined();
    expect(await failure(store.open("../x"))).toMatchObject({ code: "unsafe-file-name" });
  });

  test("a file that is missing is suggested another", async () => {
    const store = hubStore("org/name", { endpoint: (await serveHub({ "org/name": small })).endpoint });
    expect((await failure(readJson(store, "confg.json"))).message).toBe(
      "hf://org/name: there is no confg.json. Closest: config.json.",
    );
  });
});

function hugeShard(file: HubFile, index: number): { file: HubFile; names: string[] } {
  const { head, size } = file as { head: Uint8Array; size: number };
  const text = new TextDecoder().decode(head.subarray(8)).replaceAll("model.layers", `model.part${index}`);
  const bytes = json(JSON.parse(text));
  const renamed = new Uint8Array(8 + bytes.length);
  new DataView(renamed.buffer).setBigUint64(0, BigInt(bytes.length), true);
  renamed.set(bytes, 8);
  return {
    file: { head: renamed, size: size - head.length + renamed.length },
    names: Object.keys(JSON.parse(text) as object),
  };
}

describe("refusals", () => {
  const answer =
    (status: number, headers: Record<string, string> = {}) =>
    async (options = {}) => {
      const hub = await serveHub(
        { "org/name": small },
        {
          intercept: (_, response) => {
            response.writeHead(status, headers).end();
            return true;
          },
        },
      );
      return failure(readJson(hubStore("org/name", { endpoint: hub.endpoint, ...options }), "config.json"));
    };

  test.each([
    [
      "gated, no token",
      answer(401, { "x-error-code": "GatedRepo" }),
      "gated",
      /Accept its terms on .*\/org\/name; then set HF_TOKEN/,
    ],
    ["forbidden", answer(403), "gated", /access to this model is restricted/],
    [
      "no such model",
      answer(401, { "x-error-code": "RepoNotFound" }),
      "missing-repository",
      /no public model of that name.*search=name.*set HF_TOKEN/,
    ],
    [
      "no such model, 404",
      answer(404, { "x-error-code": "RepoNotFound" }),
      "missing-repository",
      /data sets and Spaces are not models/,
    ],
    [
      "no such revision",
      answer(404, { "x-error-code": "RevisionNotFound" }),
      "missing-revision",
      /no revision "main"/,
    ],
    ["rate limit", answer(429, { "retry-after": "17" }), "rate-limited", /in 17 s; with a token/],
    ["server trouble", answer(503), "http-status", /answered 503.*try again later/],
  ] as const)("%s", async (_, ask, code, message) => {
    const error = await ask();
    expect(error.code).toBe(code);
    expect(error.message).toMatch(/^hf:\/\/org\/name: /);
    expect(error.message).toMatch(message);
  });

  test("with a token that is not allowed in, it is not told to set one", async () => {
    const error = await answer(403, { "x-error-code": "GatedRepo" })({ accessToken: "hf_x" });
    expect(error.message).toContain("the token that was sent");
    expect(error.message).not.toContain("hf_x");
  });

  test("a server that says nothing, or stops in the middle, is given up", async () => {
    const silent = await serveHub({}, { intercept: () => true });
    const options = { endpoint: silent.endpoint, idleTimeout: 100 };
    expect(await failure(readJson(hubStore("org/name", options), "config.json"))).toMatchObject({
      code: "timeout",
    });
    const stalling = await serveHub(
      {},
      {
        intercept: (request, response) => {
          response.writeHead(206, { "content-range": "bytes 0-999/1000", etag: '"x"' });
          response.write(request.headers.range === "bytes=0-0" ? "{" : "{ ");
          if (request.headers.range === "bytes=0-0") response.end();
          return true;
        },
      },
    );
    const error = await failure(
      readJson(hubStore("org/name", { ...options, endpoint: stalling.endpoint }), "config.json"),
    );
    expect(error).toMatchObject({ code: "timeout" });
    expect(error.message).toContain("the server sent nothing for 0.1 s");
  });

  test("nobody there", async () => {
    const error = await failure(
      readJson(hubStore("org/name", { endpoint: "http://127.0.0.1:9" }), "config.json"),
    );
    expect(error.code).toBe("network");
    expect(error.message).toContain("http://127.0.0.1:9 cannot be reached");
  });

  test("something else than the Hub", async () => {
    const hub = await serveHub(
      {},
      {
        intercept: (_, response) => {
          response.writeHead(206).end("x");
          return true;
        },
      },
    );
    expect(
      (await failure(readJson(hubStore("org/name", { endpoint: hub.endpoint }), "config.json"))).code,
    ).toBe("unknown-size");
  });

  test("an abort ends it at once", async () => {
    const hub = await serveHub({}, { intercept: () => true });
    const reading = hubStore("org/name", { endpoint: hub.endpoint }).open("x", {
      signal: AbortSignal.timeout(50),
    });
    await expect(reading).rejects.toThrow(expect.objectContaining({ name: "TimeoutError" }));
  });

  test.each(["", "a/b/c", "org/", "-x/y", "a..b/c", "org/name@..", "x".repeat(500)])(
    "%j is no name",
    (name) => {
      expect(() => hubStore(name)).toThrow(expect.objectContaining({ code: "invalid-hub-name" }));
    },
  );
});

describe("the environment of the Python libraries", () => {
  const cacheWith = async (files: Record<string, Uint8Array>) => {
    const home = await mkdtemp(join(tmpdir(), "graft-hub-"));
    onTestFinished(() => rm(home, { recursive: true }));
    const repository = join(home, "hub/models--org--name");
    await mkdir(join(repository, "refs"), { recursive: true });
    await mkdir(join(repository, "snapshots", commit), { recursive: true });
    await writeFile(join(repository, "refs/main"), commit);
    for (const [name, bytes] of Object.entries(files))
      await writeFile(join(repository, "snapshots", commit, name), bytes);
    return { home, repository };
  };

  test("what is in the cache is not asked for; the rest is, from the same commit", async () => {
    const { home, repository } = await cacheWith({ "config.json": json({ cached: true }) });
    const hub = await serveHub({ "org/name": small });
    const store = await openHub("org/name", {}, { HF_HOME: home, HF_ENDPOINT: `${hub.endpoint}/` });
    expect(await readJson(store, "config.json")).toEqual({ cached: true });
    expect(hub.seen).toEqual([]);
    expect((await store.open("config.json"))!.path).toContain(home);
    await readCheckpoint(store);
    expect(hub.seen[0]).toBe(`GET /org/name/resolve/${commit}/model.safetensors bytes=0-0`);
    await mkdir(join(repository, ".no_exist", commit), { recursive: true });
    await writeFile(join(repository, ".no_exist", commit, "x.json"), "");
    const before = hub.seen.length;
    expect(await store.open("x.json")).toBeUndefined();
    expect(hub.seen).toHaveLength(before);
  });

  test("offline, only the cache counts", async () => {
    const { home } = await cacheWith(small);
    const environment = {
      HF_HUB_CACHE: join(home, "hub"),
      HF_HUB_OFFLINE: "1",
      HF_ENDPOINT: "http://127.0.0.1:9",
    };
    const store = await openHub("org/name", {}, environment);
    expect((await readCheckpoint(store)).tensors.size).toBe(2);
    expect(await store.open("other.json")).toBeUndefined();
    expect(await store.list!()).toContain("config.json");
    expect(await failure(readJson(await openHub("org/other", {}, environment), "config.json"))).toMatchObject(
      {
        code: "offline",
        message: expect.stringContaining(
          "hf://org/other: HF_HUB_OFFLINE is set, and the model is not in the cache",
        ),
      },
    );
  });

  test("tokens: HF_TOKEN, or the file that `hf auth login` writes", async () => {
    const { home } = await cacheWith({});
    const hub = await serveHub({ "org/other": small }, { token: "hf_kept" });
    const environment = { HF_HOME: home, HF_ENDPOINT: hub.endpoint };
    expect((await failure(readJson(await openHub("org/other", {}, environment), "config.json"))).code).toBe(
      "missing-repository",
    );
    await writeFile(join(home, "token"), "hf_kept\n");
    expect(await readJson(await openHub("org/other", {}, environment), "config.json")).toEqual({
      model_type: "llama",
    });
    const other = await openHub("org/other", {}, { ...environment, HF_TOKEN: "not-hf-style" });
    await failure(readJson(other, "config.json"));
    expect(hub.authorizations.at(-1)).toBe("Bearer not-hf-style");
  });

  test("HF_HUB_DOWNLOAD_TIMEOUT is in seconds", async () => {
    const hub = await serveHub({}, { intercept: () => true });
    const store = await openHub(
      "org/x",
      {},
      { HF_HOME: "/nowhere", HF_ENDPOINT: hub.endpoint, HF_HUB_DOWNLOAD_TIMEOUT: "0.1" },
    );
    expect((await failure(store.open("x"))).code).toBe("timeout");
  });
});

describe("openStore", () => {
  test("hf:// and a name that is no path are of the Hub; a path that exists is not", async () => {
    const hub = await serveHub({ "org/name": small, single: small });
    const before = { ...process.env };
    onTestFinished(() => {
      process.env = before;
    });
    process.env["HF_ENDPOINT"] = hub.endpoint;
    process.env["HF_HOME"] = join(tmpdir(), "graft-no-such-home");
    for (const location of ["hf://org/name", "org/name", "hf://single", "single", "org/name@v1"])
      expect((await readCheckpoint(await openStore(location))).tensors.size).toBe(2);
    const count = hub.seen.length;
    expect((await readCheckpoint(await openStore("models/tiny-llama"))).tensors.size).toBeGreaterThan(2);
    expect(hub.seen).toHaveLength(count);
    const neither = await openStore("no-such-org/no-such-model");
    expect((await failure(readJson(neither, "config.json"))).message).toMatch(
      /^no-such-org\/no-such-model: there is no such file or directory, and .*no public model of that name/,
    );
  });

  test.each(["nothing.safetensors", "a/b/c", "./x/y", "C:\\x", "https:/x"])(
    "%s is not looked for on the Hub",
    async (location) => {
      expect((await failure(openStore(location))).code).toBe("missing-file");
    },
  );
});
