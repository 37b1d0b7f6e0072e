import type { FileStore } from "./byte-source.ts";
import type { HttpOptions } from "./http-source.ts";
import { hubStore, urlStore } from "./url-store.ts";

/**
 * The files at a location: an http(s) address of a directory or of one file, `hf://org/name[@revision]` for a
 * repository on the Hub, or (in Node) a local directory, .safetensors file or shard index. A store is returned
 * as it is. `http` applies to addresses.
 * @throws CheckpointError if there is nothing there, or it is a file of another kind.
 */
export async function openStore(location: string | FileStore, http: HttpOptions = {}): Promise<FileStore> {
  if (typeof location !== "string") return location;
  if (/^https?:\/\//i.test(location)) return urlStore(location, http);
  if (location.startsWith("hf://")) return hubStore(location.slice("hf://".length), http);
  const { openLocal } = await import("./local/node.ts");
  return openLocal(location);
}
