import type { FileStore } from "./byte-source.ts";
import type { HttpOptions } from "./http-source.ts";
import { type HubOptions, hubStore } from "./hub/hub-store.ts";
import { defaultIdleTimeout, withIdleTimeout } from "./idle-timeout.ts";
import { urlStore } from "./url-store.ts";

const hubScheme = "hf://";

/**
 * The files at a location: an http(s) address of a directory or of one file, `hf://org/name[@revision]` for a model on
 * the Hub, or (in Node) a local directory, .safetensors file or shard index. A name such as `org/name` that is no local
 * path is one of the Hub. A store is returned as it is. `http` applies to addresses and to the Hub.
 * @throws CheckpointError if there is nothing there, or it is a file of another kind.
 */
export async function openStore(location: string | FileStore, http: HttpOptions = {}): Promise<FileStore> {
  if (typeof location !== "string") return location;
  if (/^https?:\/\//i.test(location))
    return urlStore(location, { ...http, fetch: withIdleTimeout(http.fetch, defaultIdleTimeout) });
  if (location.startsWith(hubScheme)) return openHub(location.slice(hubScheme.length), http);
  const { openLocal } = await import("./local/node.ts");
  return openLocal(location, { orElse: () => openHub(location, { ...http, localPath: location }) });
}

/** In Node with the environment and the cache of the Python libraries; a browser has neither. */
async function openHub(repository: string, options: HubOptions): Promise<FileStore> {
  const { process } = globalThis as { process?: { versions?: { node?: string } } };
  if (process?.versions?.node === undefined) return hubStore(repository, options);
  const node = await import("./hub/node.ts");
  return node.openHub(repository, options);
}
