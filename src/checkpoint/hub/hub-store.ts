import { CheckpointError } from "../../errors.ts";
import {
  type ByteSource,
  checkLength,
  checkRange,
  type FileStore,
  type ReadOptions,
} from "../byte-source.ts";
import { checkFileName } from "../file-name.ts";
import type { HttpOptions } from "../http-source.ts";
import { defaultIdleTimeout } from "../idle-timeout.ts";
import { requireHubName } from "./name.ts";
import { type HubConnection, hubFetch, problem, unreachable } from "./requests.ts";

export type HubOptions = HttpOptions & {
  /** For private and gated models. */
  readonly accessToken?: string | undefined;
  /** Address of the Hub. @default "https://huggingface.co" */
  readonly endpoint?: string | undefined;
  /** Milliseconds without a byte after which a request is given up. @default 30000 */
  readonly idleTimeout?: number | undefined;
  /** Set where the name was looked for as a local path first, for messages. */
  readonly localPath?: string | undefined;
};

/**
 * A model on the Hugging Face Hub, e.g. `"org/name"` or `"org/name@revision"`. Files are read by range requests, through
 * `@huggingface/hub`: of a file of weights only what is asked for is transferred.
 * @throws CheckpointError if the name is not one of a repository.
 */
export function hubStore(repository: string, options: HubOptions = {}): FileStore {
  const name = requireHubName(repository);
  const { fetch, headers = {}, accessToken, idleTimeout = defaultIdleTimeout, localPath } = options;
  const endpoint = (options.endpoint ?? "https://huggingface.co").replace(/\/+$/, "");
  const authorized = Object.keys(headers).some((key) => key.toLowerCase() === "authorization");
  const hub: HubConnection = {
    name,
    endpoint,
    hasToken: accessToken !== undefined || authorized,
    fetch,
    headers,
    idleTimeout,
    localPath,
    commit: undefined,
  };
  const request = (file: string, signal: AbortSignal | undefined) => ({
    repo: { type: "model" as const, name: name.id },
    revision: hub.commit ?? name.revision,
    hubUrl: endpoint,
    fetch: hubFetch(hub, file, signal),
    // Tokens of other Hubs look different; @huggingface/hub knows only those of its own, which begin with "hf_".
    ...(accessToken?.startsWith("hf_") === true ? { accessToken } : {}),
  });
  if (accessToken !== undefined && !accessToken.startsWith("hf_") && !authorized)
    Object.assign(hub, { headers: { ...headers, authorization: `Bearer ${accessToken}` } });
  const display = localPath ?? `hf://${repository}`;
  return {
    name: display,
    async open(file, { signal } = {}) {
      signal?.throwIfAborted();
      checkFileName(display, file);
      const { fileDownloadInfo, downloadFile } = await import("@huggingface/hub");
      const path = file.split("/").map(encodeURIComponent).join("/");
      try {
        const info = await fileDownloadInfo({ ...request(file, signal), path });
        if (info === null) return undefined;
        // Xet's protocol reconstructs a file from chunks; a header is had sooner, and in fewer bytes, by one range.
        const fetchBlob = async (inner: AbortSignal | undefined) =>
          (await downloadFile({ ...request(file, inner), path, downloadInfo: info, xet: false }))!;
        return blobFile(`${display}/${file}`, info.size, fetchBlob);
      } catch (error) {
        signal?.throwIfAborted();
        throw asOurs(hub, file, error);
      }
    },
    async list() {
      const { listFiles } = await import("@huggingface/hub");
      const files: string[] = [];
      try {
        for await (const entry of listFiles({ ...request("", undefined), recursive: false }))
          if (entry.type === "file") files.push(entry.path);
      } catch {
        // Only used for suggestions.
      }
      return files;
    },
  };

  function blobFile(
    label: string,
    size: number,
    fetchBlob: (signal: AbortSignal | undefined) => Promise<Blob>,
  ): ByteSource {
    return {
      name: label,
      size,
      async read(start: number, end: number, { signal }: ReadOptions = {}) {
        signal?.throwIfAborted();
        checkRange(label, size, start, end);
        if (start === end) return new Uint8Array(0);
        try {
          const blob = await fetchBlob(signal);
          // One more than the end: of a slice that is exactly the whole file, WebBlob would not ask for a range.
          const bytes = new Uint8Array(await blob.slice(start, end === size ? end + 1 : end).arrayBuffer());
          checkLength(label, start, end, bytes.length);
          return bytes;
        } catch (error) {
          signal?.throwIfAborted();
          throw asOurs(hub, label, error);
        }
      },
    };
  }
}

/** @huggingface/hub's errors, and those of a transfer that breaks, in our words. */
function asOurs(hub: HubConnection, file: string, error: unknown): CheckpointError {
  if (error instanceof CheckpointError) return error;
  if (error instanceof Error && /^Expected|^Invalid file size|^No /.test(error.message))
    return problem(hub, file, {
      code: "unknown-size",
      what: `the server's answer for ${file} is not the Hub's (${error.message})`,
      remedy: "Check HF_ENDPOINT, and whether a proxy is in between.",
      cause: error,
    });
  return unreachable(hub, file, error);
}
