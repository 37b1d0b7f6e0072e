import { Worker } from "node:worker_threads";
import type { Place } from "../../data/problem.ts";
import type { ImageSource } from "../../data/types.ts";
import { DataError } from "../../errors.ts";
import { type Tensor, tensor } from "../../tensor/index.ts";
import type { PictureReply, PictureRequest, PictureSettings } from "../pictures/protocol.ts";

/** The part of a Worker that is used. */
export type PictureWorker = Pick<Worker, "postMessage" | "ref" | "unref" | "terminate"> & {
  on(event: "message", listener: (reply: PictureReply) => void): unknown;
  on(event: "error", listener: (error: Error) => void): unknown;
  on(event: "exit", listener: (code: number) => void): unknown;
};

/** Starts pictures/worker.js, or in Graft's own checkout worker.ts through tsx, so that tests run what they read. */
function startWorker(workerData: PictureSettings): PictureWorker {
  if (!import.meta.url.endsWith(".ts"))
    return new Worker(new URL("../pictures/worker.js", import.meta.url), { workerData });
  const tsx = import.meta.resolve("tsx/esm/api");
  const file = new URL("../pictures/worker.ts", import.meta.url).href;
  const load = `import(${JSON.stringify(tsx)}).then(({ register }) => (register(), import(${JSON.stringify(file)})))`;
  return new Worker(load, { eval: true, workerData });
}

type Waiting = {
  image: ImageSource;
  place: Place;
  resolve: (pixels: Tensor<"float32">) => void;
  reject: (error: Error) => void;
};

/**
 * A thread that decodes and preprocesses pictures, so that whoever asks for them can go on. At most `concurrent` are with
 * the thread at a time; the others wait as what they were named by, in their order. The thread starts with the first one,
 * and keeps no process alive when there is nothing to do.
 */
export class PictureThread {
  readonly #settings: PictureSettings;
  readonly #concurrent: number;
  readonly #start: (settings: PictureSettings) => PictureWorker;
  readonly #queue: Waiting[] = [];
  readonly #underWay = new Map<number, Waiting>();
  #worker: PictureWorker | undefined;
  #sent = 0;
  #stopped: DataError | undefined;
  #idle: (() => void) | undefined;

  constructor(settings: PictureSettings, concurrent: number, start = startWorker) {
    this.#settings = settings;
    this.#concurrent = concurrent;
    this.#start = start;
  }

  /** @throws DataError of the picture, "pictures-closed", "pictures-stopped" */
  read(image: ImageSource, place: Place): Promise<Tensor<"float32">> {
    if (this.#stopped) return Promise.reject(this.#stopped);
    return new Promise((resolve, reject) => {
      this.#queue.push({ image, place, resolve, reject });
      this.#send();
    });
  }

  /** Refuses what waits, and ends the thread after the pictures that it has begun. */
  async close(): Promise<void> {
    this.#stopped ??= new DataError("The pictures' thread was closed. Close it after its last use.", {
      code: "pictures-closed",
    });
    for (const { reject } of this.#queue.splice(0)) reject(this.#stopped);
    if (this.#underWay.size > 0)
      await new Promise<void>((resolve) => {
        this.#idle = resolve;
      });
    await this.#worker?.terminate();
  }

  #send(): void {
    while (this.#queue.length > 0 && this.#underWay.size < this.#concurrent) {
      const waiting = this.#queue.shift()!;
      const id = ++this.#sent;
      // A copy, and only now: bytes may be a part of much more, all of which would be copied or taken away.
      const { image, place } = waiting;
      const sent = "bytes" in image ? { ...image, bytes: image.bytes.slice() } : image;
      this.#underWay.set(id, waiting);
      this.#worker ??= this.#started();
      this.#worker.ref();
      this.#worker.postMessage(
        { id, image: sent, place } satisfies PictureRequest,
        "bytes" in sent ? [sent.bytes.buffer as ArrayBuffer] : [],
      );
    }
  }

  #started(): PictureWorker {
    const worker = this.#start(this.#settings);
    worker.on("message", (reply) => this.#settle(reply));
    worker.on("error", (error) => this.#fail(error.message));
    worker.on("exit", (code) => this.#fail(`it ended with code ${code}`));
    return worker;
  }

  #settle(reply: PictureReply): void {
    const waiting = this.#underWay.get(reply.id);
    this.#underWay.delete(reply.id);
    if ("error" in reply) {
      const { message, code, details = {} } = reply.error;
      waiting?.reject(code === undefined ? new Error(message) : new DataError(message, { code, details }));
    } else waiting?.resolve(tensor("float32", [...reply.shape], reply.data));
    this.#send();
    if (this.#underWay.size === 0) this.#rest();
  }

  #fail(reason: string): void {
    this.#stopped ??= new DataError(`The thread that decodes pictures failed: ${reason}.`, {
      code: "pictures-stopped",
    });
    for (const { reject } of [...this.#underWay.values(), ...this.#queue.splice(0)]) reject(this.#stopped);
    this.#underWay.clear();
    this.#rest();
  }

  #rest(): void {
    this.#worker?.unref();
    this.#idle?.();
  }
}
