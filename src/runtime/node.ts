import { realpathSync } from "node:fs";
import { availableParallelism } from "node:os";
import { nearest, RuntimeFailure } from "../errors.ts";
import {
  emit,
  lower,
  type Port,
  type Program,
  readStorage,
  type Value,
  type WeightStorage,
} from "../graph/index.ts";
import { checkFeeds } from "./feeds.ts";
import { lowerings } from "./lowerings.ts";
import { EngineThread } from "./thread/node.ts";
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
    const program = emit(lower(outputs, lowerings[this.device]), { realPath });
    checkPorts(program);
    const memoryWeights = await Promise.all(
      program.memoryWeights.map(async ({ location, storage }) => ({
        location,
        bytes: await readWhole(storage),
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
    const unknown = keep.find((name) => this.outputs.every((port) => port.name !== name));
    if (unknown !== undefined)
      throw new RuntimeFailure(
        `There is no output "${unknown}" to keep. Outputs: ${this.outputs.map(({ name }) => name).join(", ")}.`,
        { code: "unknown-output", details: { name: unknown } },
      );
    const { outputs, kept } = await this.thread.request({
      type: "run",
      session: this.session,
      feeds: checkFeeds(this.inputs, feeds),
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

  /** Does nothing if the session, or its engine, has been disposed of. */
  async dispose(): Promise<void> {
    if (this.thread.isStopped) return;
    await this.thread.request({ type: "close", session: this.session });
  }
}

/** Where links lead. A file that is not there keeps its path: ONNX Runtime names it in its error. */
function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

/** A weight's bytes in a buffer of their own: sending a view would copy the whole buffer below it. */
async function readWhole(storage: WeightStorage): Promise<Uint8Array> {
  const bytes = await readStorage(storage);
  return bytes.byteLength === bytes.buffer.byteLength ? bytes : bytes.slice();
}

/** onnxruntime-node has no tensors of 8-bit and bfloat16 floats. @throws RuntimeFailure if one is to pass. */
function checkPorts({ inputs, outputs }: Program): void {
  for (const [kind, ports] of [
    ["Input", inputs],
    ["Output", outputs],
  ] as const)
    for (const { name, dtype } of ports)
      if (dtype === "bfloat16" || dtype.startsWith("float8"))
        throw new RuntimeFailure(
          `${kind} "${name}" is ${dtype}, which ONNX Runtime does not pass to JavaScript; cast it in the graph.`,
          { code: "port-dtype", details: { name, dtype } },
        );
}
