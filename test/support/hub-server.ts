import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { onTestFinished } from "vitest";

export type HubFile = Uint8Array | { readonly size: number; readonly head: Uint8Array };

export type HubBehaviour = {
  /** Answers before anything else; true if it did. */
  readonly intercept?: (request: IncomingMessage, response: ServerResponse) => boolean;
  /** Files of these names are stored with LFS, on another origin, as on the Hub. */
  readonly lfs?: RegExp;
  /** Files of these names are stored with Xet. */
  readonly xet?: RegExp;
  readonly ignoreRange?: boolean;
  readonly token?: string;
};

export type HubServer = {
  readonly endpoint: string;
  /** Method, path and range of each request, in order. */
  readonly seen: string[];
  /** Bytes of bodies sent, by file. */
  readonly sent: Map<string, number>;
  /** Authorization of each request. */
  readonly authorizations: (string | undefined)[];
};

export const commit = "0123456789abcdef0123456789abcdef01234567";

/** A server on this machine that speaks the protocol of the Hugging Face Hub, for models. */
export async function serveHub(
  models: Readonly<Record<string, Readonly<Record<string, HubFile>>>>,
  behaviour: HubBehaviour = {},
): Promise<HubServer> {
  const { lfs = /\.safetensors$/, xet = /(?!)/, ignoreRange = false, token, intercept } = behaviour;
  const seen: string[] = [];
  const sent = new Map<string, number>();
  const authorizations: (string | undefined)[] = [];
  const log = (request: IncomingMessage) => {
    seen.push([request.method, request.url, request.headers.range].filter(Boolean).join(" "));
    authorizations.push(request.headers.authorization);
  };
  const content = (request: IncomingMessage, response: ServerResponse, name: string, file: HubFile) => {
    const size = "size" in file ? file.size : file.length;
    const range = ignoreRange ? null : /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
    const etag = `"${createHash("sha256").update(`${name} ${size}`).digest("hex")}"`;
    const [start, end] = range ? [Number(range[1]), Math.min(Number(range[2]) + 1, size)] : [0, size];
    if (range !== null && start >= size)
      return void response.writeHead(416, { "content-range": `bytes */${size}`, etag }).end();
    const body = "size" in file ? pad(file.head, start, end) : file.subarray(start, end);
    response.writeHead(range ? 206 : 200, {
      etag,
      "content-length": end - start,
      ...(range ? { "content-range": `bytes ${start}-${end - 1}/${size}` } : {}),
    });
    if (request.method === "HEAD") return void response.end();
    sent.set(name, (sent.get(name) ?? 0) + body.length);
    return void response.end(body);
  };
  const storage = await listen((request, response) => {
    log(request);
    const [, model, name] = /^\/storage\/([^/]+)\/(.*)$/.exec(request.url!)!;
    content(request, response, name!, models[decodeURIComponent(model!)]![name!]!);
  });
  const endpoint = await listen((request, response) => {
    log(request);
    if (intercept?.(request, response) === true) return;
    const url = new URL(request.url!, "http://hub");
    const refuse = (status: number, code: string) =>
      response
        .writeHead(status, { "x-error-code": code, "content-type": "application/json" })
        .end(`{"error":"${code}"}`);
    if (token !== undefined && request.headers.authorization !== `Bearer ${token}`)
      return void refuse(401, "RepoNotFound");
    const tree = /^\/api\/models\/(.+?)\/tree\/([^/]+)$/.exec(url.pathname);
    if (tree !== null) {
      const files = models[tree[1]!];
      if (files === undefined) return void refuse(404, "RepoNotFound");
      const list = Object.entries(files).map(([path, file]) => ({
        type: "file",
        path,
        size: "size" in file ? file.size : file.length,
        ...(lfs.test(path) ? { lfs: { oid: "0".repeat(64), size: 1, pointerSize: 130 } } : {}),
      }));
      return void response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(list));
    }
    const [, model = "", revision = "", name = ""] =
      /^\/((?:[^/]+\/)?[^/]+)\/resolve\/([^/]+)\/(.*)$/.exec(url.pathname) ?? [];
    const files = models[model];
    if (files === undefined) return void refuse(401, "RepoNotFound");
    if (!["main", "v1", commit].includes(decodeURIComponent(revision)))
      return void refuse(404, "RevisionNotFound");
    const file = files[decodeURIComponent(name)];
    if (file === undefined) return void refuse(404, "EntryNotFound");
    response.setHeader("x-repo-commit", commit);
    const size = "size" in file ? file.size : file.length;
    if (xet.test(name)) {
      response.setHeader("x-linked-size", size);
      response.setHeader("x-linked-etag", '"xet"');
      if (request.headers.accept?.includes("xet-fileinfo") === true) {
        const link = `<${endpoint}/xet-auth>; rel="xet-auth", <${endpoint}/xet-info>; rel="xet-reconstruction-info"`;
        const headers = {
          "content-type": "application/vnd.xet-fileinfo+json",
          "x-xet-hash": "ab".repeat(32),
          link,
        };
        return void response.writeHead(200, headers).end("{}");
      }
    }
    if (lfs.test(name) || xet.test(name)) {
      const location = `${storage}/storage/${encodeURIComponent(model)}/${name}`;
      return void response
        .writeHead(302, { location, "x-linked-size": size, "x-linked-etag": '"lfs"' })
        .end();
    }
    content(request, response, name, file);
  });
  return { endpoint, seen, sent, authorizations };
}

/** Bytes of a file of which only the beginning is not zero. */
function pad(head: Uint8Array, start: number, end: number): Uint8Array {
  const body = new Uint8Array(end - start);
  body.set(head.subarray(start, end));
  return body;
}

async function listen(
  handler: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<string> {
  const server = createServer(handler);
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
