import { CheckpointError } from "../errors.ts";
import type { FileStore } from "./byte-source.ts";
import { baseName, checkFileName } from "./file-name.ts";
import { type HttpOptions, httpSource } from "./http-source.ts";

/**
 * Files below an address. An address that ends in .safetensors or .json names that one file, beside which
 * config.json is looked for. A query string (as of signed addresses) is sent with every request and left out
 * of messages.
 * @throws CheckpointError if the address is not http or https.
 */
export function urlStore(baseUrl: string, http: HttpOptions = {}): FileStore {
  const base = parseUrl(baseUrl);
  const name = `${base.origin}${base.pathname}`;
  const last = decodeURIComponent(baseName(base.pathname));
  const single = /\.(?:safetensors|json|json\.gz|bin|pth?|ckpt)$/i.test(last);
  const directory = single
    ? base.pathname.slice(0, base.pathname.lastIndexOf("/") + 1)
    : base.pathname.replace(/\/*$/, "/");
  return {
    name,
    ...(single ? { weights: last } : {}),
    async open(file, options) {
      options?.signal?.throwIfAborted();
      checkFileName(name, file);
      const path = directory + file.split("/").map(encodeURIComponent).join("/");
      return httpSource(`${base.origin}${path}${base.search}`, `${base.origin}${path}`, http, options);
    },
  };
}

function parseUrl(text: string): URL {
  let url: URL | undefined;
  try {
    url = new URL(text);
  } catch {
    // Reported below.
  }
  if (url?.protocol === "http:" || url?.protocol === "https:") return url;
  throw new CheckpointError(`${text}: not an http or https address. Write it out: https://host/path/.`, {
    code: "invalid-url",
    details: { url: text },
  });
}
