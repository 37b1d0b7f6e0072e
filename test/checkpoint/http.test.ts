import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import {
  openStore,
  readCheckpoint,
  readJson,
  readTensor,
  serializeSafetensors,
  urlStore,
} from "../../src/checkpoint/index.ts";
import { f32, failure } from "./helpers.ts";

const weight = f32(...Array.from({ length: 50_000 }, (_, i) => i));
const model = serializeSafetensors({ weight, bias: f32(1, 2, 3) }, { format: "pt" });
const files: Record<string, Uint8Array> = {
  "/m/model.safetensors": model,
  "/m/config.json": new TextEncoder().encode('{"model_type": "llama"}'),
};

type Handler = (request: IncomingMessage, response: ServerResponse, seen: string[]) => void;

/** A server on this machine; `seen` has method, path and range of each request. */
async function serve(handler: Handler): Promise<{ base: string; seen: string[] }> {
  const seen: string[] = [];
  const server: Server = createServer((request, response) => {
    seen.push([request.method, request.url, request.headers.range].filter(Boolean).join(" "));
    handler(request, response, seen);
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { base: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen };
}

const range = (request: IncomingMessage, size: number): [number, number] => {
  const [, start, last] = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? "")!;
  return [Number(start), Math.min(Number(last) + 1, size)];
};

/** A server that does everything right, with changes for the answer to the nth request. */
const correct =
  (change: (headers: Record<string, string>, n: number) => Record<string, string> = (h) => h): Handler =>
  (request, response, seen) => {
    const file = files[request.url!.replace(/\?.*/, "")];
    if (file === undefined) return void response.writeHead(404).end("no");
    const [start, end] = range(request, file.length);
    const headers = { "content-range": `bytes ${start}-${end - 1}/${file.length}` };
    response.writeHead(206, change(headers, seen.length)).end(file.subarray(start, end));
  };

/** A server that ignores Range. */
const whole: Handler = (request, response) => {
  const file = files[request.url!];
  if (file === undefined) return void response.writeHead(404).end("no");
  response.writeHead(200, { "content-length": file.length }).end(file);
};

describe("a server with ranges", () => {
  test("gives the header in one request and each tensor in one more", async () => {
    const { base, seen } = await serve(correct());
    const { tensors } = await readCheckpoint(await openStore(`${base}/m`));
    expect(seen).toEqual(["GET /m/model.safetensors bytes=0-99999"]);
    expect(await readTensor(tensors.get("weight")!)).toEqual(weight);
    const { byteOffset, byteLength } = tensors.get("weight")!;
    expect(seen.slice(1)).toEqual([
      `GET /m/model.safetensors bytes=${byteOffset}-${byteOffset + byteLength - 1}`,
    ]);
    expect(await readJson(urlStore(`${base}/m/`), "config.json")).toEqual({ model_type: "llama" });
  });

  test("tensors among the first bytes need no further request", async () => {
    const { base, seen } = await serve(correct());
    const small = serializeSafetensors({ a: f32(1, 2) });
    files["/small.safetensors"] = small;
    const { tensors } = await readCheckpoint(await openStore(`${base}/small.safetensors`));
    expect((await readTensor(tensors.get("a")!)).data).toEqual(Float32Array.of(1, 2));
    expect(seen).toHaveLength(1);
  });

  test("a header longer than 100,000 bytes takes two requests", async () => {
    const { base, seen } = await serve(correct());
    const tensors = Object.fromEntries(Array.from({ length: 2000 }, (_, i) => [`layer.${i}.weight`, f32(i)]));
    files["/long/model.safetensors"] = serializeSafetensors(tensors);
    const checkpoint = await readCheckpoint(await openStore(`${base}/long`));
    expect(checkpoint.tensors.size).toBe(2000);
    expect(seen).toHaveLength(2);
    expect(seen[1]).toMatch(/bytes=100000-\d+$/);
  });

  test("an address of a file finds config.json beside it; a query is kept, and left out of messages", async () => {
    const { base, seen } = await serve(correct());
    const store = await openStore(`${base}/m/model.safetensors?token=secret`);
    expect((await readCheckpoint(store)).tensors.size).toBe(2);
    await readJson(store, "config.json");
    expect(seen[1]).toBe("GET /m/config.json?token=secret bytes=0-99999");
    const error = await failure(readJson(store, "nothing.json"));
    expect(error.message).toContain(`${base}/m/model.safetensors: there is no nothing.json`);
    expect(error.message).not.toContain("secret");
  });

  test("headers are sent, and names are escaped", async () => {
    const requests: { url: string; headers: Record<string, string> }[] = [];
    const store = urlStore("https://example.org/m", {
      headers: { authorization: "Bearer x" },
      fetch: async (url, init) => {
        requests.push({ url: String(url), headers: init!.headers as Record<string, string> });
        return new Response(null, { status: 404 });
      },
    });
    expect(await store.open("a b#?.json")).toBeUndefined();
    expect(requests).toEqual([
      {
        url: "https://example.org/m/a%20b%23%3F.json",
        headers: { authorization: "Bearer x", range: "bytes=0-99999" },
      },
    ]);
  });

  test("an empty file (416) is one of zero bytes", async () => {
    const { base } = await serve((_, response) => {
      response.writeHead(416, { "content-range": "bytes */0" }).end();
    });
    expect((await failure(readCheckpoint(await openStore(base)))).message).toContain("the file has 0 bytes");
  });

  test("redirects are followed", async () => {
    const target = await serve(correct());
    const { base } = await serve((request, response) => {
      response.writeHead(302, { location: target.base + request.url }).end();
    });
    const { tensors } = await readCheckpoint(await openStore(`${base}/m`));
    expect(await readTensor(tensors.get("weight")!)).toEqual(weight);
  });

  test("where a browser hides Content-Range, HEAD gives the size", async () => {
    const { base, seen } = await serve((request, response, all) => {
      if (request.method === "HEAD") response.writeHead(200, { "content-length": model.length }).end();
      else correct(() => ({}))(request, response, all);
    });
    const { tensors } = await readCheckpoint(await openStore(`${base}/m`));
    expect(await readTensor(tensors.get("weight")!)).toEqual(weight);
    expect(seen[1]).toBe("HEAD /m/model.safetensors");
  });
});

describe("a server that ignores Range", () => {
  test("small files are taken with the first answer", async () => {
    const { base, seen } = await serve(whole);
    const { tensors } = await readCheckpoint(await openStore(`${base}/m`));
    expect(await readTensor(tensors.get("weight")!)).toEqual(weight);
    expect(seen).toHaveLength(1);
  });

  const big = serializeSafetensors({
    big: { dtype: "uint8", shape: [9_000_000], data: new Uint8Array(9_000_000).fill(7) },
  });

  test("of large ones the header alone, and the rest once, when it is needed", async () => {
    files["/big/model.safetensors"] = big;
    const { base, seen } = await serve(whole);
    const entry = (await readCheckpoint(await openStore(`${base}/big`))).tensors.get("big")!;
    expect(seen).toHaveLength(1);
    const [a, b] = await Promise.all([readTensor(entry), readTensor(entry)]);
    for (const { data } of [a, b])
      expect(Buffer.from(data.buffer).equals(Buffer.alloc(9_000_000, 7))).toBe(true);
    expect(seen).toHaveLength(2);
  });

  test("aborting one of several readers does not fail the others", async () => {
    files["/big/model.safetensors"] = big;
    let held: (() => void) | undefined;
    const { base } = await serve((request, response, seen) => {
      // The first download hangs half-way; its reader gives up.
      if (seen.length !== 2) return whole(request, response, seen);
      response.writeHead(200, { "content-length": big.length }).write(big.subarray(0, 1000));
      held?.();
    });
    const entry = (await readCheckpoint(await openStore(`${base}/big`))).tensors.get("big")!;
    const controller = new AbortController();
    const first = readTensor(entry, { signal: controller.signal });
    const second = readTensor(entry);
    await new Promise<void>((done) => {
      held = done;
    });
    controller.abort();
    await expect(first).rejects.toThrow(/abort/i);
    expect((await second).shape).toEqual([9_000_000]);
  });

  test("too large to hold in memory is an error when a tensor is read, not before", async () => {
    const header = new TextEncoder().encode(
      '{"a":{"dtype":"U8","shape":[3000000000],"data_offsets":[0,3000000000]}}'.padEnd(80),
    );
    const head = new Uint8Array(200_000);
    head.set([80]);
    head.set(header, 8);
    const fetch = async () => new Response(head, { headers: { "content-length": String(3_000_000_088) } });
    const store = urlStore("http://host/m", { fetch });
    const entry = (await readCheckpoint(store)).tensors.get("a")!;
    const error = await failure(readTensor(entry));
    expect(error.code).toBe("range-ignored");
    expect(error.message).toContain("the server ignores Range requests, and the file has 3000000088 bytes");
  });
});

describe("faulty servers", () => {
  const fails = async (handler: Handler) => {
    const { base } = await serve(handler);
    const error = await failure(
      readCheckpoint(await openStore(`${base}/m`)).then(({ tensors }) => readTensor(tensors.get("weight")!)),
    );
    return `${error.code}: ${error.message.replace(base, "")}`;
  };

  test.each<[string, Handler, RegExp]>([
    [
      "another range than asked for",
      correct((headers, n) => (n === 2 ? { "content-range": "bytes 0-9/200000" } : headers)),
      /^wrong-range: \/m\/model.safetensors: asked for bytes \d+-\d+, the server answered with Content-Range "bytes 0-9/,
    ],
    [
      "a malformed Content-Range",
      correct(() => ({ "content-range": "bytes 0-" })),
      /^wrong-range: .*"bytes 0-"/,
    ],
    [
      "a range from the wrong start",
      correct(() => ({ "content-range": "bytes 1-100000/200000" })),
      /^wrong-range: /,
    ],
    [
      "another size later",
      correct((headers, n) =>
        n === 2 ? { "content-range": headers["content-range"]!.replace(/\d+$/, "999999") } : headers,
      ),
      /^changed: .*its size was \d+ bytes and is now 999999/,
    ],
    [
      "another ETag later",
      correct((headers, n) => ({ ...headers, etag: `"${n}"` })),
      /^changed: .*its ETag was "1" and is now "2"/,
    ],
    [
      "fewer bytes than announced",
      (request, response) => {
        const [start, end] = range(request, model.length);
        response
          .writeHead(206, { "content-range": `bytes ${start}-${end - 1}/${model.length}` })
          .end(model.subarray(start, end - 1));
      },
      /^short-read: .*announced 100000 bytes and sent 99999/,
    ],
    [
      "more bytes than announced",
      (request, response) => {
        const [start, end] = range(request, model.length);
        response
          .writeHead(206, { "content-range": `bytes ${start}-${end - 1}/${model.length}` })
          .end(model.subarray(start, end + 1));
      },
      /^wrong-length: .*more than the 100000 bytes it announced/,
    ],
    [
      "a connection that breaks",
      (request, response) => {
        const [start, end] = range(request, model.length);
        response.writeHead(206, {
          "content-range": `bytes ${start}-${end - 1}/${model.length}`,
          "content-length": end - start,
        });
        response.write(model.subarray(start, end - 1000), () => response.destroy());
      },
      /^network: .*the connection broke/,
    ],
    [
      "no connection",
      (request) => request.destroy(),
      /^network: .*the request failed: fetch failed \(.+\)\. Check the address/,
    ],
    [
      "401",
      (_, response) => void response.writeHead(401).end(),
      /^http-status: .*answered 401 Unauthorized\. The file is private or gated/,
    ],
    [
      "429",
      (_, response) => void response.writeHead(429).end(),
      /^http-status: .*429 Too Many Requests\. Too many requests: wait/,
    ],
    [
      "500",
      (_, response) => void response.writeHead(500).end(),
      /^http-status: .*500 Internal Server Error\. The server has a problem/,
    ],
    [
      "416 for a file that has bytes",
      (_, response) => void response.writeHead(416, { "content-range": "bytes */5" }).end(),
      /^range-refused: .*has 5 bytes/,
    ],
    [
      "a redirect to itself",
      (request, response) => void response.writeHead(302, { location: request.url! }).end(),
      /^network: .*redirect count exceeded/,
    ],
    [
      "an HTML page with status 200",
      (_, response) => void response.writeHead(200).end("<!DOCTYPE html><html><body>Sign in</body></html>"),
      /^html: .*this is an HTML page, not the file\. .*resolve\/main/,
    ],
    [
      "416 later",
      (request, response, seen) =>
        seen.length === 1 ? correct()(request, response, seen) : void response.writeHead(416).end(),
      /^http-status: .*416 Range Not Satisfiable\. The file is shorter than it was/,
    ],
  ])("%s", async (_, handler, expected) => {
    expect(await fails(handler)).toMatch(expected);
  });

  test("a redirect that fetch does not follow is named", async () => {
    const fetch = async () => new Response(null, { status: 302, headers: { location: "https://cdn/x" } });
    const error = await failure(readCheckpoint(urlStore("https://host/m", { fetch })));
    expect(error.message).toContain(
      "answered 302. The redirect to https://cdn/x was not followed; use that address.",
    );
  });

  test("an endless body is not taken", async () => {
    let sent = 0;
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        sent += 65_536;
        controller.enqueue(new Uint8Array(65_536));
      },
    });
    const fetch = async () =>
      new Response(body, { status: 206, headers: { "content-range": "bytes 0-99999/200000" } });
    expect((await failure(readCheckpoint(urlStore("https://host/m", { fetch })))).code).toBe("wrong-length");
    expect(sent).toBeLessThan(1_000_000);
  });

  test("aborting a request gives the signal's reason", async () => {
    const { base } = await serve(() => undefined);
    const reason = new Error("enough");
    const controller = new AbortController();
    setTimeout(() => controller.abort(reason), 20);
    await expect(readCheckpoint(await openStore(base), { signal: controller.signal })).rejects.toBe(reason);
  });

  test("pickles are recognised where the server cannot list its files", async () => {
    const { base } = await serve(correct());
    files["/pickled/pytorch_model.bin"] = new TextEncoder().encode("PK\x03\x04");
    files["/pickled/config.json"] = new TextEncoder().encode("{}");
    const error = await failure(readCheckpoint(await openStore(`${base}/pickled`)));
    expect(error.code).toBe("pickle");
    expect(error.message).toContain("pytorch_model.bin");
  });

  test.each(["ftp://host/x", "not a url"])("the address %s", (url) => {
    expect(() => urlStore(url)).toThrow("not an http or https address");
  });
});
