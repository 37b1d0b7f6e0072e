import { realpathSync } from "node:fs";
import { createRequire } from "node:module";
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
import type { Tensor } from "../tensor/index.ts";
import { checkFeeds, wholeTensor } from "./feeds.ts";
import { lowerings, prepackedLowerings } from "./lowerings.ts";
import type { ResidentInfo, WireDestination } from "./protocol.ts";
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
  SessionOptions,
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
  readonly version: string;
  private readonly thread: EngineThread;
  private readonly threads: number;

  constructor(thread: EngineThread, device: Device, threads: number) {
    this.thread = thread;
    this.device = device;
    this.version = `onnxruntime-node ${packageVersion()} ${device}`;
    this.threads = threads;
  }

  async createSession(
    outputs: Readonly<Record<string, Value>>,
    { prepack = false, optimize = true }: SessionOptions = {},
  ): Promise<Session> {
    const program = emit(lower(outputs, (prepack ? prepackedLowerings : lowerings)[this.device]), {
      realPath,
    });
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
      prepack,
      optimize,
    });
    return new NodeSession(this.thread, session, program);
  }

  async upload(tensors: Readonly<Record<string, Tensor>>): Promise<Readonly<Record<string, ResidentTensor>>> {
    const whole = Object.entries(tensors).map(([name, value]): [string, Tensor] => [
      name,
      wholeTensor(value),
    ]);
    const placed = await this.thread.request({ type: "upload", tensors: Object.fromEntries(whole) });
    return residents(this.thread, placed);
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

  async run(feeds: Feeds, { keep = [], write = {}, omit = [] }: RunOptions = {}): Promise<RunResult> {
    const unknown = [...keep, ...Object.keys(write), ...omit].find((name) =>
      this.outputs.every((port) => port.name !== name),
    );
    if (unknown !== undefined)
      throw new RuntimeFailure(
        `There is no output "${unknown}". Outputs: ${this.outputs.map(({ name }) => name).join(", ")}.`,
        { code: "unknown-output", details: { name: unknown } },
      );
    const destinations = Object.entries(write).map(
      ([name, { into, axis, at }]): [string, WireDestination] => [
        name,
        { resident: into.resident, axis, at },
      ],
    );
    const { outputs, kept } = await this.thread.request({
      type: "run",
      session: this.session,
      feeds: checkFeeds(this.inputs, feeds),
      keep,
      write: Object.fromEntries(destinations),
      omit,
    });
    return { outputs, kept: residents(this.thread, kept) };
  }

  /** Does nothing if the session, or its engine, has been disposed of. */
  async dispose(): Promise<void> {
    if (this.thread.isStopped) return;
    await this.thread.request({ type: "close", session: this.session });
  }
}

/** Handles of tensors that are in the engine. */
function residents(
  thread: EngineThread,
  placed: Readonly<Record<string, ResidentInfo>>,
): Record<string, ResidentTensor> {
  const handles = Object.entries(placed).map(([name, info]): [string, ResidentTensor] => [
    name,
    {
      ...info,
      dispose: () => void thread.request({ type: "release", resident: info.resident }).catch(() => {}),
    },
  ]);
  return Object.fromEntries(handles);
}

function packageVersion(): string {
  const { version } = createRequire(import.meta.url)("onnxruntime-node/package.json") as { version: string };
  return version;
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
