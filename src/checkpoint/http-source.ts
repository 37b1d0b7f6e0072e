import { CheckpointError } from "../errors.ts";
import { type ByteSource, checkRange, type ReadOptions } from "./byte-source.ts";
import { readBody } from "./http-body.ts";
import { firstReadLength } from "./safetensors.ts";

export type HttpOptions = {
  /** Replaces the global `fetch`, e.g. to add retries, a cache or a proxy. */
  readonly fetch?: typeof globalThis.fetch;
  /** Sent with every request, e.g. `{ authorization: "Bearer …" }`. */
  readonly headers?: Readonly<Record<string, string>>;
};

/** A file that a server ignoring Range sends whole is taken with the first request up to this many bytes… */
const takeWholeLength = 8 * 2 ** 20;

/** …and is otherwise downloaded into memory once, when a tensor is read, up to this many. */
const maxWholeLength = 2 ** 30;

/**
 * Opens a file on a server with one request for its first 100,000 bytes. Later reads ask for ranges.
 * @returns undefined if the server answers that there is no such file (404, 410).
 * @throws CheckpointError for any other failure; the signal's reason if aborted.
 */
export async function httpSource(
  url: string,
  name: string,
  http: HttpOptions,
  options: ReadOptions = {},
): Promise<ByteSource | undefined> {
  const file = new HttpFile(url, name, http);
  return (await file.open(options)) ? file : undefined;
}

class HttpFile implements ByteSource {
  readonly name: string;
  size = 0;
  private readonly url: string;
  private readonly http: HttpOptions;
  /** The first bytes of the file, kept from the first answer. */
  private head: Uint8Array<ArrayBuffer> = new Uint8Array(0);
  private etag: string | undefined;
  private ranges = true;
  private whole: Promise<void> | undefined;

  constructor(url: string, name: string, http: HttpOptions) {
    this.url = url;
    this.name = name;
    this.http = http;
  }

  async open({ signal }: ReadOptions): Promise<boolean> {
    const response = await this.request({ range: [0, firstReadLength] }, signal);
    if (response.status === 404 || response.status === 410) {
      await discard(response);
      return false;
    }
    this.etag = strongEtag(response);
    if (response.status === 416) await this.openEmpty(response);
    else if (response.status === 206) await this.openPartial(response, signal);
    else if (response.status === 200) await this.openWhole(response, signal);
    else throw await this.refused(response);
    return true;
  }

  async read(start: number, end: number, { signal }: ReadOptions = {}): Promise<Uint8Array<ArrayBuffer>> {
    signal?.throwIfAborted();
    checkRange(this.name, this.size, start, end);
    if (end > this.head.length && start < end) {
      if (this.ranges) {
        const bytes = await this.readRange(start, end, signal);
        if (bytes !== undefined) return bytes;
      }
      await this.download(signal);
    }
    return this.head.slice(start, end);
  }

  /** The bytes, or undefined if the server ignores ranges after all. */
  private async readRange(start: number, end: number, signal?: AbortSignal) {
    const response = await this.request({ range: [start, end] }, signal);
    if (response.status === 200) {
      this.ranges = false;
      await discard(response);
      return undefined;
    }
    if (response.status !== 206) throw await this.refused(response);
    this.checkUnchanged(response);
    const range = contentRange(response);
    if (range !== undefined && (range.start !== start || range.end !== end))
      throw await this.wrongRange(response, start, end);
    if (range?.total !== undefined && range.total !== this.size)
      throw this.changed(`its size was ${this.size} bytes and is now ${range.total}`);
    return this.body(response, end - start, signal);
  }

  /** 416 to a request from byte 0: there is no byte 0. */
  private async openEmpty(response: Response): Promise<void> {
    const total = /^bytes \*\/(\d+)$/.exec(response.headers.get("content-range") ?? "")?.[1];
    await discard(response);
    if (total === undefined || Number(total) === 0) return;
    throw this.error(
      "range-refused",
      `the server has ${total} bytes and yet refuses to send the first of them (416)`,
      "Try again, or download the file.",
    );
  }

  private async openPartial(response: Response, signal?: AbortSignal): Promise<void> {
    const range = contentRange(response);
    if (range !== undefined && (range.start !== 0 || range.end > firstReadLength))
      throw await this.wrongRange(response, 0, firstReadLength);
    // Across origins a browser hides Content-Range unless the server exposes it; Content-Length it shows.
    const total = range?.total ?? (await this.lengthByHead(signal));
    const expected = Math.min(total, firstReadLength);
    if (range !== undefined && range.end !== expected) throw await this.wrongRange(response, 0, expected);
    this.size = total;
    this.head = await this.body(response, expected, signal);
  }

  private async lengthByHead(signal?: AbortSignal): Promise<number> {
    const response = await this.request({ method: "HEAD" }, signal);
    const length = contentLength(response);
    await discard(response);
    if (response.ok && length !== undefined) return length;
    throw this.error(
      "unknown-size",
      "the server does not tell how long the file is",
      "If this is a browser, the server must expose the Content-Range header (Access-Control-Expose-Headers).",
    );
  }

  /** The server ignores Range and sends everything. Takes what is needed now and hangs up. */
  private async openWhole(response: Response, signal?: AbortSignal): Promise<void> {
    this.ranges = false;
    const length = contentLength(response);
    if (length !== undefined && length > takeWholeLength) {
      this.size = length;
      this.head = await this.body(response, firstReadLength, signal, { more: true });
      return;
    }
    this.head = await this.body(response, length, signal);
    this.size = this.head.length;
  }

  /** Downloads the file into `head`, once for all readers; one reader's abort does not fail the others. */
  private async download(signal?: AbortSignal): Promise<void> {
    if (this.size > maxWholeLength)
      throw this.error(
        "range-ignored",
        `the server ignores Range requests, and the file has ${this.size} bytes, too many to hold in memory whole`,
        "Download the file, or use a server that supports ranges.",
      );
    while (this.head.length < this.size) {
      const own = this.whole === undefined;
      this.whole ??= this.downloadWhole(signal).finally(() => {
        this.whole = undefined;
      });
      try {
        await this.whole;
      } catch (error) {
        signal?.throwIfAborted();
        if (own || error instanceof CheckpointError) throw error;
      }
    }
  }

  private async downloadWhole(signal?: AbortSignal): Promise<void> {
    const response = await this.request({}, signal);
    if (response.status !== 200) throw await this.refused(response);
    this.checkUnchanged(response);
    this.head = await this.body(response, this.size, signal);
  }

  private async request(
    { range, method = "GET" }: { range?: readonly [start: number, end: number]; method?: string },
    signal?: AbortSignal,
  ): Promise<Response> {
    const fetch = this.http.fetch ?? globalThis.fetch;
    const headers = { ...this.http.headers, ...(range && { range: `bytes=${range[0]}-${range[1] - 1}` }) };
    try {
      return await fetch(this.url, { method, headers, ...(signal && { signal }) });
    } catch (cause) {
      signal?.throwIfAborted();
      throw this.error(
        "network",
        `the request failed: ${reason(cause)}`,
        "Check the address and the connection; in a browser, the server must also allow this page (CORS).",
        cause,
      );
    }
  }

  private async body(
    response: Response,
    length: number | undefined,
    signal?: AbortSignal,
    { more = false } = {},
  ): Promise<Uint8Array<ArrayBuffer>> {
    let bytes: Uint8Array<ArrayBuffer> | "too-long";
    try {
      bytes = await readBody(response, length ?? maxWholeLength, { more });
    } catch (cause) {
      signal?.throwIfAborted();
      throw this.error("network", `the connection broke: ${reason(cause)}`, "Try again.", cause);
    }
    if (bytes === "too-long")
      throw length === undefined
        ? this.error(
            "unknown-size",
            "the server sends more than 1 GiB without saying how much",
            "Download the file.",
          )
        : this.error(
            "wrong-length",
            `the server sent more than the ${length} bytes it announced`,
            "Try again.",
          );
    if (length === undefined || bytes.length === length) return bytes;
    throw this.error(
      "short-read",
      `the server announced ${length} bytes and sent ${bytes.length}`,
      "The connection was cut; try again.",
    );
  }

  private checkUnchanged(response: Response): void {
    const etag = strongEtag(response);
    this.etag ??= etag;
    if (etag !== undefined && etag !== this.etag)
      throw this.changed(`its ETag was ${this.etag} and is now ${etag}`);
  }

  private changed(how: string): CheckpointError {
    return this.error("changed", `the file changed while it was being read: ${how}`, "Open it again.");
  }

  private async wrongRange(response: Response, start: number, end: number): Promise<CheckpointError> {
    await discard(response);
    return this.error(
      "wrong-range",
      `asked for bytes ${start}-${end - 1}, the server answered with Content-Range ` +
        `"${response.headers.get("content-range")}"`,
      "The server, or a proxy before it, is faulty: download the file instead.",
    );
  }

  /** The error for a status that is neither success nor "not there". */
  private async refused(response: Response): Promise<CheckpointError> {
    await discard(response);
    const { status, statusText } = response;
    const location = response.headers.get("location");
    const remedy =
      status === 401 || status === 403
        ? "The file is private or gated: send credentials in `headers` (on huggingface.co, " +
          '{ authorization: "Bearer hf_…" }, after accepting the model\'s terms).'
        : status === 404 || status === 410
          ? "The file is no longer there."
          : status === 416
            ? "The file is shorter than it was: open it again."
            : status === 429
              ? "Too many requests: wait and try again."
              : status >= 500
                ? "The server has a problem: try again later."
                : status >= 300 && status < 400
                  ? `The redirect${location === null ? "" : ` to ${location}`} was not followed; use that address.`
                  : "Check the address.";
    const text = statusText === "" ? "" : ` ${statusText}`;
    return this.error("http-status", `the server answered ${status}${text}`, remedy, undefined, { status });
  }

  private error(code: string, what: string, remedy: string, cause?: unknown, details = {}): CheckpointError {
    return new CheckpointError(`${this.name}: ${what}. ${remedy}`, {
      code,
      details: { file: this.name, ...details },
      cause,
    });
  }
}

/** fetch says only "fetch failed"; what happened is in the cause. */
function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? `${error.message} (${error.cause.message})` : error.message;
}

/** Ends the transfer of a body that is not wanted. */
async function discard(response: Response): Promise<void> {
  await response.body?.cancel().catch(() => undefined);
}

function contentRange(response: Response): { start: number; end: number; total?: number } | undefined {
  const text = response.headers.get("content-range");
  if (text === null) return undefined;
  const match = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(text.trim());
  if (match === null) return { start: Number.NaN, end: Number.NaN };
  const [start, last, total] = match.slice(1).map(Number) as [number, number, number];
  return { start, end: last + 1, ...(Number.isSafeInteger(total) && { total }) };
}

/** Length of the file, where the header says so: with a content encoding it counts the encoded bytes. */
function contentLength(response: Response): number | undefined {
  const encoding = response.headers.get("content-encoding") ?? "identity";
  const length = response.headers.get("content-length") ?? "";
  return encoding === "identity" && /^\d{1,15}$/.test(length) ? Number(length) : undefined;
}

/** Equal strong validators promise equal bytes (RFC 9110, 8.8.1); weak ones do not. */
function strongEtag(response: Response): string | undefined {
  const etag = response.headers.get("etag");
  return etag === null || etag.startsWith("W/") ? undefined : etag;
}
