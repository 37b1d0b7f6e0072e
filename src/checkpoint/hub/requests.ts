import { CheckpointError } from "../../errors.ts";
import { readBody } from "../http-body.ts";
import { IdleTimeoutError, named, withIdleTimeout } from "../idle-timeout.ts";
import type { HubName } from "./name.ts";

/** What the requests to one repository have in common. */
export type HubConnection = {
  readonly name: HubName;
  readonly endpoint: string;
  readonly hasToken: boolean;
  readonly fetch: typeof globalThis.fetch | undefined;
  readonly headers: Readonly<Record<string, string>>;
  readonly idleTimeout: number;
  /** Set where the name was looked for as a local path first. */
  readonly localPath: string | undefined;
  /** The commit that the first answer came from; later ones are asked for the same. */
  commit: string | undefined;
};

/** Bytes of a body that are read only to throw them away, where a server ignores Range. */
const maxSkipped = 32 * 2 ** 20;

/**
 * The fetch that is given to `@huggingface/hub`: it never hangs, says what a refusal means, and takes no more of a
 * file than was asked for, even from a server that ignores Range.
 */
export function hubFetch(
  hub: HubConnection,
  file: string,
  signal: AbortSignal | undefined,
): typeof globalThis.fetch {
  const patient = withIdleTimeout(hub.fetch, hub.idleTimeout);
  return async (input, init = {}) => {
    const headers = new Headers(init.headers);
    for (const [key, value] of Object.entries(hub.headers)) headers.set(key, value);
    let response: Response;
    try {
      response = await patient(input, { ...init, headers, ...(signal && { signal }) });
    } catch (cause) {
      signal?.throwIfAborted();
      throw unreachable(hub, file, cause);
    }
    const commit = response.headers.get("x-repo-commit");
    if (commit !== null && /^[0-9a-f]{40}$/.test(commit)) hub.commit ??= commit;
    if (!response.ok) return refuse(hub, file, response);
    const range = /^bytes=(\d+)-(\d+)$/.exec(headers.get("range") ?? "");
    if (range === null) return response;
    const [start, end] = [Number(range[1]), Number(range[2]) + 1];
    return response.status === 200 ? cut(hub, file, response, start, end) : bounded(response, end - start);
  };
}

/** Passes on "there is no such file"; everything else is an error. */
async function refuse(hub: HubConnection, file: string, response: Response): Promise<Response> {
  await response.body?.cancel().catch(() => undefined);
  const code = response.headers.get("x-error-code");
  if ((response.status === 404 || response.status === 410) && (code === null || code === "EntryNotFound"))
    return new Response(null, { status: 404, headers: { "x-error-code": "EntryNotFound" } });
  // An empty file has no byte 0.
  if (response.status === 416)
    return new Response(null, {
      status: 206,
      headers: { "content-range": "bytes */0", etag: response.headers.get("etag") ?? '"empty"' },
    });
  throw refusal(hub, file, response, code);
}

function refusal(
  hub: HubConnection,
  file: string,
  { status, headers }: Response,
  code: string | null,
): CheckpointError {
  const { id, revision } = hub.name;
  const page = `${hub.endpoint}/${id}`;
  const token = hub.hasToken
    ? "the token that was sent (HF_TOKEN, or the one of `hf auth login`) has no access to it"
    : "set HF_TOKEN to a token of yours, or run `hf auth login`";
  if (code === "GatedRepo" || status === 403)
    return problem(hub, file, {
      code: "gated",
      status,
      what: "access to this model is restricted",
      remedy: `Accept its terms on ${page}; then ${hub.hasToken ? `try again: as yet ${token}` : token}.`,
    });
  if (code === "RevisionNotFound")
    return problem(hub, file, {
      code: "missing-revision",
      status,
      what: `the model has no revision "${revision}"`,
      remedy: `Its branches and tags are listed on ${page}/tree/main.`,
    });
  if (code === "RepoNotFound" || status === 401 || status === 404)
    return problem(hub, file, {
      code: "missing-repository",
      status,
      what: "the Hub has no public model of that name",
      remedy: `Check the spelling on ${hub.endpoint}/models?search=${encodeURIComponent(id.split("/").at(-1)!)} (data sets and Spaces are not models); if it is private, ${token}.`,
    });
  if (status === 429) {
    const wait = headers.get("retry-after");
    return problem(hub, file, {
      code: "rate-limited",
      status,
      what: "the Hub answers no more requests for now (429)",
      remedy: `Try again ${wait === null ? "later" : `in ${wait} s`}${hub.hasToken ? "" : "; with a token (HF_TOKEN) more are allowed"}.`,
    });
  }
  return problem(hub, file, {
    code: "http-status",
    status,
    what: `the server answered ${status}`,
    remedy:
      status >= 500 ? "It has a problem: try again later." : "Check the name, and HF_ENDPOINT if it is set.",
  });
}

export function unreachable(hub: HubConnection, file: string, cause: unknown): CheckpointError {
  if (cause instanceof CheckpointError) return cause;
  if (cause instanceof IdleTimeoutError)
    return problem(hub, file, {
      code: "timeout",
      what: cause.message,
      remedy: "Check the connection and try again; HF_HUB_DOWNLOAD_TIMEOUT sets the seconds to wait.",
      cause,
    });
  const inner = cause instanceof Error && cause.cause instanceof Error ? ` (${cause.cause.message})` : "";
  return problem(hub, file, {
    code: "network",
    what: `${hub.endpoint} cannot be reached: ${cause instanceof Error ? cause.message : String(cause)}${inner}`,
    remedy: "Check the connection, or download the model and name its directory.",
    cause,
  });
}

type Trouble = { code: string; what: string; remedy: string; status?: number; cause?: unknown };

export function problem(hub: HubConnection, file: string, trouble: Trouble): CheckpointError {
  const { id, revision } = hub.name;
  const repository = revision === "main" ? id : `${id}@${revision}`;
  const where = hub.localPath === undefined ? `hf://${repository}` : hub.localPath;
  const local = hub.localPath === undefined ? "" : "there is no such file or directory, and on the Hub ";
  const { code, what, remedy, status, cause } = trouble;
  return new CheckpointError(
    `${where}: ${local}${local === "" ? "" : "it was not found either: "}${what}. ${remedy}`,
    {
      code,
      details: { repository: id, revision, file, endpoint: hub.endpoint, ...(status && { status }) },
      cause,
    },
  );
}

/** A partial answer, of which no more is read than was asked for. */
async function bounded(response: Response, length: number): Promise<Response> {
  const bytes = await readBody(response, length, { more: true });
  const headers = new Headers(response.headers);
  for (const name of ["content-length", "content-encoding"]) headers.delete(name);
  if (!headers.has("etag")) headers.set("etag", '"none"');
  return named(new Response(bytes as Uint8Array<ArrayBuffer>, { status: 206, headers }), response.url);
}

/** The part of a whole file that was asked for; the rest is not transferred. */
async function cut(
  hub: HubConnection,
  file: string,
  response: Response,
  start: number,
  end: number,
): Promise<Response> {
  const announced = response.headers.get("content-length") ?? response.headers.get("x-linked-size");
  const encoded = (response.headers.get("content-encoding") ?? "identity") !== "identity";
  if (start > maxSkipped) {
    await response.body?.cancel().catch(() => undefined);
    throw problem(hub, file, {
      code: "range-ignored",
      what: `the server ignores Range requests, so that bytes in the middle of ${file} cannot be had alone`,
      remedy: "Download the model and name its directory.",
    });
  }
  const reader = response.body?.getReader();
  const bytes = new Uint8Array(end - start);
  let position = 0;
  for (;;) {
    const read = reader === undefined ? { done: true as const, value: undefined } : await reader.read();
    if (read.done) break;
    const from = Math.max(0, start - position);
    const part = read.value.subarray(from, Math.max(from, end - position));
    bytes.set(part, position + from - start);
    position += read.value.length;
    // The size of a file whose length is not announced is known at its end only.
    if (position >= end && announced !== null && !encoded) break;
  }
  await reader?.cancel().catch(() => undefined);
  const size = announced === null || encoded ? position : Number(announced);
  const kept = bytes.subarray(0, Math.max(0, Math.min(end, size, position) - start));
  const headers = new Headers(response.headers);
  for (const name of ["content-length", "content-encoding"]) headers.delete(name);
  headers.set("content-range", `bytes ${start}-${start + kept.length - 1}/${size}`);
  if (!headers.has("etag")) headers.set("etag", '"none"');
  return new Response(kept, { status: 206, headers });
}
