import { setTimeout as delay } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { RuntimeFailure } from "../../errors.ts";
import {
  BUSY,
  type ReplyMessage,
  type ReplyOf,
  type Request,
  type RequestMessage,
  STOPPING,
} from "../protocol.ts";

/** Longest wait, in milliseconds, for what ONNX Runtime is doing when the process exits. */
const EXIT_TIMEOUT = 60_000;

/** Starts worker.js, or in Graft's own checkout worker.ts through tsx, so that tests run what they read. */
function startWorker(state: Int32Array): Worker {
  const workerData = { state };
  if (!import.meta.url.endsWith(".ts"))
    return new Worker(new URL("../worker.js", import.meta.url), { workerData });
  const tsx = import.meta.resolve("tsx/esm/api");
  const file = new URL("../worker.ts", import.meta.url).href;
  const load = `import(${JSON.stringify(tsx)}).then(({ register }) => (register(), import(${JSON.stringify(file)})))`;
  return new Worker(load, { eval: true, workerData });
}

/** Threads that the end of the process has to wait for. */
const running = new Set<EngineThread>();
process.on("exit", () => {
  for (const thread of running) thread.finish();
});

/**
 * The thread that ONNX Runtime runs on: requests to it, and what waits for its replies.
 *
 * A thread that is ended inside ONNX Runtime takes the whole process down with SIGABRT (Napi::Error), and so does
 * process.exit(). So the thread is ended between two requests only, which both sides agree on in shared memory.
 */
export class EngineThread {
  private readonly worker: Worker;
  private readonly state = new Int32Array(new SharedArrayBuffer(2 * Int32Array.BYTES_PER_ELEMENT));
  private readonly waiting = new Map<
    number,
    { resolve: (reply: never) => void; reject: (error: RuntimeFailure) => void }
  >();
  private sent = 0;
  private stopped: RuntimeFailure | undefined;

  constructor() {
    this.worker = startWorker(this.state);
    this.worker.on("message", (message: ReplyMessage) => this.settle(message));
    this.worker.on("error", (error) =>
      this.stop("engine-stopped", `The engine's thread failed: ${error.message}`),
    );
    this.worker.on("exit", (code) => {
      running.delete(this);
      Atomics.store(this.state, BUSY, 0);
      this.stop("engine-stopped", `The engine's thread ended with code ${code}.`);
    });
    this.worker.unref();
    running.add(this);
  }

  get isStopped(): boolean {
    return this.stopped !== undefined;
  }

  /** @throws RuntimeFailure for what fails on the thread, or if the thread has ended. */
  request<R extends Request>(request: R): Promise<ReplyOf[R["type"]]> {
    if (this.stopped) return Promise.reject(this.stopped);
    const id = ++this.sent;
    return new Promise((resolve, reject) => {
      this.worker.postMessage({ id, request } satisfies RequestMessage);
      this.waiting.set(id, { resolve, reject });
      this.worker.ref();
    });
  }

  /** Rejects what is under way at once; resolves when the thread has ended, after the request it is working on. */
  async dispose(): Promise<void> {
    this.stop("engine-disposed", "The engine has been disposed of.");
    Atomics.store(this.state, STOPPING, 1);
    while (Atomics.load(this.state, BUSY) === 1) await delay(5);
    await this.worker.terminate();
  }

  /** Blocks until the thread can be ended: there is nothing else to do it with when the process exits. */
  finish(): void {
    Atomics.store(this.state, STOPPING, 1);
    Atomics.wait(this.state, BUSY, 1, EXIT_TIMEOUT);
  }

  private settle(message: ReplyMessage): void {
    const waiting = this.waiting.get(message.id);
    this.waiting.delete(message.id);
    // Who waits for the end of a thread that is ended needs the process alive until then.
    if (this.waiting.size === 0 && !this.stopped) this.worker.unref();
    if ("error" in message)
      waiting?.reject(new RuntimeFailure(message.error.message, { code: message.error.code }));
    else waiting?.resolve(message.reply as never);
  }

  private stop(code: string, message: string): void {
    this.stopped ??= new RuntimeFailure(message, { code });
    for (const { reject } of this.waiting.values()) reject(this.stopped);
    this.waiting.clear();
  }
}
