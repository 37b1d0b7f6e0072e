import { createReadStream, mkdtempSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { extname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium, type Page } from "playwright-core";

const root = resolve(fileURLToPath(new URL("../..", import.meta.url)));
const types: Record<string, string> = {
  ".js": "text/javascript",
  ".html": "text/html",
  ".json": "application/json",
};
const flags =
  "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync";

export type OpenPage = {
  readonly page: Page;
  /** What was asked of the server. */
  readonly requests: { url: string; range: string | undefined }[];
  close(): Promise<void>;
};

/** A blank page in Chromium, served with the files of this repository; `extra` are folders by the start of their address. */
export async function openPage(extra: Readonly<Record<string, string>> = {}): Promise<OpenPage> {
  const requests: OpenPage["requests"] = [];
  const fileOf = (pathname: string): string => {
    const [start] = Object.keys(extra).filter((prefix) => pathname.startsWith(prefix));
    return start === undefined ? join(root, pathname) : join(extra[start]!, pathname.slice(start.length));
  };
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url!, "http://localhost");
    requests.push({ url: pathname, range: request.headers.range });
    if (pathname === "/")
      return void response.setHeader("content-type", "text/html").end("<!doctype html><title>graft</title>");
    const path = fileOf(pathname);
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
  const profile = mkdtempSync(join(tmpdir(), "graft-browser-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env["GRAFT_CHROMIUM"]!,
    args: flags.split(" "),
  });
  const page = await context.newPage();
  await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  return {
    page,
    requests,
    async close() {
      await context.close();
      server.close();
      rmSync(profile, { recursive: true, force: true });
    },
  };
}
