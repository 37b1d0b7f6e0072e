import { readFile, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { CheckpointError } from "../../errors.ts";
import type { FileStore } from "../byte-source.ts";
import { checkFileName } from "../file-name.ts";
import { directoryStore } from "../local/node.ts";
import { type HubOptions, hubStore } from "./hub-store.ts";
import { type HubName, requireHubName } from "./name.ts";

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * A model on the Hub as the Python libraries would find it: HF_ENDPOINT, HF_TOKEN (or the token that `hf auth login`
 * keeps), HF_HUB_OFFLINE, HF_HUB_DOWNLOAD_TIMEOUT, and first of all the files that are in their cache (HF_HUB_CACHE,
 * HF_HOME). What is fetched is not added to it.
 * @throws CheckpointError if the name is not one of a repository.
 */
export async function openHub(
  repository: string,
  options: HubOptions = {},
  environment: Environment = process.env,
): Promise<FileStore> {
  const name = requireHubName(repository);
  const home =
    environment["HF_HOME"] || join(environment["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "huggingface");
  const cache = environment["HF_HUB_CACHE"] || environment["HUGGINGFACE_HUB_CACHE"] || join(home, "hub");
  const snapshot = await findSnapshot(join(cache, `models--${name.id.replaceAll("/", "--")}`), name);
  const seconds = Number(environment["HF_HUB_DOWNLOAD_TIMEOUT"]);
  const accessToken = options.accessToken ?? (await readToken(home, environment));
  const remote = hubStore(snapshot === undefined ? repository : `${name.id}@${snapshot.commit}`, {
    endpoint: environment["HF_ENDPOINT"] || undefined,
    ...(seconds > 0 ? { idleTimeout: seconds * 1000 } : {}),
    ...options,
    ...(accessToken === undefined ? {} : { accessToken }),
  });
  const display = options.localPath ?? `hf://${repository}`;
  const offline = isOffline(environment);
  if (snapshot === undefined && !offline) return remote;
  const local = snapshot && directoryStore(snapshot.path);
  return {
    name: display,
    async open(file, read) {
      checkFileName(display, file);
      const cached = await local?.open(file, read);
      if (cached !== undefined) return cached;
      if (local === undefined) throw notCached(display, name, cache);
      const isKnownMissing = await exists(join(snapshot!.repository, ".no_exist", snapshot!.commit, file));
      return isKnownMissing || offline ? undefined : remote.open(file, read);
    },
    list: async () => (offline ? ((await local?.list?.()) ?? []) : remote.list!()),
  };
}

type Snapshot = { readonly repository: string; readonly commit: string; readonly path: string };

/** Where the cache keeps that revision, if it does. */
async function findSnapshot(repository: string, { revision }: HubName): Promise<Snapshot | undefined> {
  const reference = await readFile(join(repository, "refs", revision), "utf8").catch(() => revision);
  const commit = reference.trim();
  if (!/^[0-9a-f]{40}$/.test(commit)) return undefined;
  const path = join(repository, "snapshots", commit);
  return (await exists(path)) ? { repository, commit, path } : undefined;
}

async function readToken(home: string, environment: Environment): Promise<string | undefined> {
  const set = environment["HF_TOKEN"] || environment["HUGGING_FACE_HUB_TOKEN"];
  if (set) return set.trim();
  const path = environment["HF_TOKEN_PATH"] || join(home, "token");
  const kept = await readFile(path, "utf8").catch(() => "");
  return kept.trim() || undefined;
}

const isOffline = (environment: Environment): boolean =>
  ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].some((name) =>
    /^(?:1|on|yes|true)$/i.test(environment[name] ?? ""),
  );

function notCached(display: string, { id, revision }: HubName, cache: string): CheckpointError {
  return new CheckpointError(
    `${display}: HF_HUB_OFFLINE is set, and the model is not in the cache (${cache}). Unset it, or name a local directory.`,
    { code: "offline", details: { repository: id, revision, cache } },
  );
}

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );
