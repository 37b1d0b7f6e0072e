import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { nearest, RuntimeFailure } from "../errors.ts";
import {
  emit,
  formatShape,
  lower,
  type Port,
  type Program,
  readStorage,
  type Value,
} from "../graph/index.ts";
import { lowerings } from "./lowerings.ts";
import type { ReplyMessage, ReplyOf, Request, RequestMessage, WireTensor } from "./protocol.ts";
import type {
  Device,
  Engine,
  EngineOptions,
  Feeds,
  ResidentTensor,
  RunOptions,
  RunResult,
  Session,
} from "./types.ts";

/**
 * ONNX Runtime in Node, in a worker thread, so that progress, timers and Ctrl-C stay alive while it computes.
 * The thread does not keep the process alive when nothing is under way.
 * @throws RuntimeFailure if onnxruntime-node is missing or the device is not there.
 */
export async function createEngine({ device = "cpu", threads }: EngineOptions = {}): Promise<Engine> {
  if (threads !== undefined && !(Number.isInteger(threads) && threads > 0))
    throw new RuntimeFailure(`threads must be a positive integer, got ${threads}.`, {
      code: "invalid-threads",
    });
  const thread = new EngineThread();
  try {
    const devices = (await thread.request({ type: "devices" })).map(({ name }) => name);
    if (!devices.includes(device)) {
      const close = nearest(device, devices, 1)[0];
      throw new RuntimeFailure(
        `Device "${device}" is not available here. Available: ${devices.join(", ")}.${close ? ` Did you mean "${close}"?` : ""}`,
        { code: "unknown-device", details: { device, available: devices } },
      );
    }
  } catch (error) {
    await thread.dispose();
    throw error;
  }
  return new NodeEngine(thread, device, threads ?? availableParallelism());
}

/** Devices that ONNX Runtime can use on this machine; "cpu" is always there. */
export async function listDevices(): Promise<Device[]> {
  const thread = new EngineThread();
  try {
    return (await thread.request({ type: "devices" })).map(({ name }) => name);
  } finally {
    await thread.dispose();
  }
}

/** Starts worker.js, or in Graft's own checkout worker.ts through tsx, so that tests run what they read. */
function startThread(): Worker {
  if (!import.meta.url.endsWith(".ts")) return new Worker(new URL("./worker.js", import.meta.url));
  const tsx = import.meta.resolve("tsx/esm/api");
  const file = new URL("./worker.ts", import.meta.url).href;
  const load = `import(${JSON.stringify(tsx)}).then(({ register }) => (register(), import(${JSON.stringify(file)})))`;
  return new Worker(load, { eval: true });
}

/** Requests to the worker, and what waits for its replies. */
class EngineThread {
  private readonly worker: Worker;
  private readonly waiting = new Map<
    number,
    { resolve: (reply: never) => void; reject: (error: RuntimeFailure) => void }
  >();
  private sent = 0;
  private stopped: RuntimeFailure | undefined;

  constructor() {
    this.worker = startThread();
    this.worker.on("message", (message: ReplyMessage) => this.settle(message));
    this.worker.on("error", (error) => this.stop(`The engine's thread failed: ${error.message}`));
    this.worker.on("exit", (code) => this.stop(`The engine's thread ended with code ${code}.`));
    this.worker.unref();
  }

  request<R extends Request>(request: R): Promise<ReplyOf[R["type"]]> {
    if (this.stopped) return Promise.reject(this.stopped);
    const id = ++this.sent;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.ref();
      this.worker.postMessage({ id, request } satisfies RequestMessage);
    });
  }

  private settle(message: ReplyMessage): void {
    const waiting = this.waiting.get(message.id);
    this.waiting.delete(message.id);
    if (this.waiting.size === 0) this.worker.unref();
    if ("error" in message)
      waiting?.reject(new RuntimeFailure(message.error.message, { code: message.error.code }));
    else waiting?.resolve(message.reply as never);
  }

  private stop(message: string): void {
    this.stopped ??= new RuntimeFailure(message, { code: "engine-stopped" });
    for (const { reject } of this.waiting.values()) reject(this.stopped);
    this.waiting.clear();
  }

  async dispose(): Promise<void> {
    this.stopped ??= new RuntimeFailure("The engine has been disposed of.", { code: "engine-disposed" });
    await this.worker.terminate();
  }
}

class NodeEngine implements Engine {
  readonly device: Device;
  private readonly thread: EngineThread;
  private readonly threads: number;

  constructor(thread: EngineThread, device: Device, threads: number) {
    this.thread = thread;
    this.device = device;
    this.threads = threads;
  }

  async createSession(outputs: Readonly<Record<string, Value>>): Promise<Session> {
    const program = emit(lower(outputs, lowerings[this.device]));
    const memoryWeights = await Promise.all(
      program.memoryWeights.map(async ({ location, storage }) => ({
        location,
        bytes: await readStorage(storage),
      })),
    );
    const { session } = await this.thread.request({
      type: "create",
      model: program.model,
      device: this.device,
      threads: this.threads,
      weightsDirectory: program.weightsDirectory,
      memoryWeights,
    });
    return new NodeSession(this.thread, session, program);
  }

  dispose(): Promise<void> {
    return this.thread.dispose();
  }
}

class NodeSession implements Session {
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
  private readonly thread: EngineThread;
  private readonly session: number;

  constructor(thread: EngineThread, session: number, { inputs, outputs }: Program) {
    this.thread = thread;
    this.session = session;
    this.inputs = inputs;
    this.outputs = outputs;
  }

  async run(feeds: Feeds, { keep = [] }: RunOptions = {}): Promise<RunResult> {
    const wire: Record<string, WireTensor> = {};
    for (const port of this.inputs) wire[port.name] = checkFeed(port, feeds[port.name]);
    const { outputs, kept } = await this.thread.request({
      type: "run",
      session: this.session,
      feeds: wire,
      keep,
    });
    const resident = Object.entries(kept).map(([name, info]): [string, ResidentTensor] => [
      name,
      {
        ...info,
        dispose: () => void this.thread.request({ type: "release", resident: info.resident }).catch(() => {}),
      },
    ]);
    return { outputs, kept: Object.fromEntries(resident) };
  }

  async dispose(): Promise<void> {
    await this.thread.request({ type: "close", session: this.session });
  }
}

/** A feed as it is sent. Extra feeds are not sent, so that one set of feeds serves several programs. */
function checkFeed(port: Port, value: Feeds[string] | undefined): WireTensor {
  const { name, dtype, shape } = port;
  if (value === undefined)
    throw new RuntimeFailure(`Input "${name}" is not fed.`, { code: "missing-feed", details: { name } });
  const fits =
    value.shape.length === shape.length &&
    shape.every((dim, i) => typeof dim !== "number" || dim === value.shape[i]);
  if (value.dtype !== dtype || !fits)
    throw new RuntimeFailure(
      `Input "${name}" needs ${dtype}${formatShape(shape)}, got ${value.dtype}${formatShape(value.shape)}.`,
      { code: "wrong-feed", details: { name } },
    );
  return "resident" in value ? { resident: value.resident } : value;
}
