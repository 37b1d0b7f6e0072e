/** How long a server may send nothing before it is given up, in milliseconds. */
export const defaultIdleTimeout = 30_000;

/** The server sent nothing for as long as it was given. */
export class IdleTimeoutError extends Error {
  override readonly name = "IdleTimeoutError";

  constructor(milliseconds: number) {
    super(`the server sent nothing for ${milliseconds / 1000} s`);
  }
}

/**
 * A fetch that fails when nothing arrives for a while: neither the headers nor the next piece of the body. However
 * long a transfer takes as a whole, it goes on as long as bytes come.
 */
export function withIdleTimeout(
  fetch: typeof globalThis.fetch | undefined,
  milliseconds: number,
): typeof globalThis.fetch {
  return async (input, init = {}) => {
    const watch = new AbortController();
    const { signal } = init;
    const stop = () => watch.abort(signal!.reason);
    if (signal?.aborted === true) stop();
    signal?.addEventListener("abort", stop, { once: true });
    const within = async <T>(step: () => Promise<T>): Promise<T> => {
      const timer = setTimeout(() => watch.abort(new IdleTimeoutError(milliseconds)), milliseconds);
      try {
        return await step();
      } catch (error) {
        signal?.removeEventListener("abort", stop);
        throw watch.signal.aborted ? watch.signal.reason : error;
      } finally {
        clearTimeout(timer);
      }
    };
    const response = await within(() =>
      (fetch ?? globalThis.fetch)(input, { ...init, signal: watch.signal }),
    );
    const reader = response.body?.getReader();
    if (reader === undefined) return response;
    const body = new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          const { done, value } = await within(() => reader.read());
          if (!done) return controller.enqueue(value);
          signal?.removeEventListener("abort", stop);
          controller.close();
        },
        cancel(reason) {
          signal?.removeEventListener("abort", stop);
          return reader.cancel(reason);
        },
      },
      { highWaterMark: 0 },
    );
    const { status, statusText, headers, url } = response;
    return named(new Response(body, { status, statusText, headers }), url);
  };
}

/** A response that was made here, with the address that the original came from. */
export function named(response: Response, url: string): Response {
  Object.defineProperty(response, "url", { value: url });
  return response;
}
