/** The engine's thread: owns ONNX Runtime's sessions and the tensors that stay in it. Started by node.ts. */
import { parentPort, workerData } from "node:worker_threads";
import type { InferenceSession, Tensor as OrtTensor } from "onnxruntime-common";
import { type DType, type Tensor, typedArrays } from "../tensor/index.ts";
import {
  BUSY,
  type ReplyMessage,
  type ReplyOf,
  type Request,
  type RequestMessage,
  type ResidentInfo,
  STOPPING,
  type WireDestination,
  type WireTensor,
} from "./protocol.ts";
import type { Device } from "./types.ts";

type Ort = typeof import("onnxruntime-node");

let loaded: Promise<Ort> | undefined;
const sessions = new Map<number, InferenceSession>();
const residents = new Map<number, OrtTensor>();
let created = 0;

/** An error with a stable code, for the other side to wrap. */
class WorkerFailure extends Error {
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

const explain = (error: unknown): string => (error instanceof Error ? error.message : String(error));

function ort(): Promise<Ort> {
  loaded ??= import("onnxruntime-node").catch((error: unknown) => {
    const missing = (error as { code?: string }).code === "ERR_MODULE_NOT_FOUND";
    throw missing
      ? new WorkerFailure(
          "runtime-missing",
          "onnxruntime-node is not installed. Run: npm install onnxruntime-node",
        )
      : new WorkerFailure(
          "runtime-unusable",
          `onnxruntime-node has no binary that works on ${process.platform}/${process.arch}: ${explain(error)}`,
        );
  });
  return loaded;
}

function toOrt(api: Ort, value: WireTensor): OrtTensor {
  if ("resident" in value) {
    const kept = residents.get(value.resident);
    if (!kept)
      throw new WorkerFailure("resident-gone", "A tensor that was kept in the engine has been released.");
    return kept;
  }
  return new api.Tensor(value.dtype as "float32", value.data as Float32Array, value.shape);
}

/** Writes a result into a tensor that stays here. @throws WorkerFailure if it does not fit */
function copyInto(name: string, result: OrtTensor, { resident, axis, at }: WireDestination): void {
  const target = residents.get(resident);
  if (!target)
    throw new WorkerFailure("resident-gone", "A tensor that was kept in the engine has been released.");
  const [from, to] = [result.dims, target.dims];
  const count = from[axis] ?? 0;
  const fits =
    result.type === target.type &&
    from.length === to.length &&
    axis < to.length &&
    to.every((size, i) => (i === axis ? at >= 0 && at + count <= size : size === from[i]));
  if (!fits)
    throw new WorkerFailure(
      "wrong-destination",
      `Output "${name}" is ${result.type}[${from}], and cannot be written at ${at} of axis ${axis} of ${target.type}[${to}].`,
    );
  const inner = to.slice(axis + 1).reduce((product, size) => product * size, 1);
  const source = result.data as Float32Array;
  const whole = target.data as Float32Array;
  const stride = to[axis]! * inner;
  const length = count * inner;
  for (let read = 0, place = at * inner; read < source.length; read += length, place += stride)
    for (let i = 0; i < length; i++) whole[place + i] = source[read + i]!;
}

/** A result's values; float16 as raw bits, which Node with a Float16Array gives as numbers. */
async function read(result: OrtTensor): Promise<Tensor["data"]> {
  const data = (await result.getData()) as Tensor["data"];
  return result.type === "float16" && !(data instanceof Uint16Array)
    ? new Uint16Array((data as ArrayBufferView).buffer, (data as ArrayBufferView).byteOffset, result.size)
    : data;
}

const handlers: { [T in Request["type"]]: (request: Extract<Request, { type: T }>) => Promise<ReplyOf[T]> } =
  {
    async devices() {
      const api = await ort();
      return api.listSupportedBackends().map(({ name, bundled }) => ({ name: name as Device, bundled }));
    },

    async create({ model, device, threads, weightsDirectory, memoryWeights, prepack, optimize }) {
      const api = await ort();
      const options: InferenceSession.SessionOptions = {
        executionProviders: [device],
        graphOptimizationLevel: optimize ? "all" : "disabled",
        executionMode: "sequential",
        // A pattern is one block for a whole run, beside the blocks of the first run, which stay: nearly twice the memory.
        enableMemPattern: false,
        intraOpNumThreads: threads,
        interOpNumThreads: 1,
        logSeverityLevel: 4, // fatal: errors reach the caller as such, and a library does not print
        externalData: memoryWeights.map(({ location, bytes }) => ({ path: location, data: bytes })),
        // What JavaScript reads. A tensor left on a GPU aborts Node when it is read.
        ...(device === "cpu" ? {} : { preferredOutputLocation: "cpu" as const }),
        extra: {
          // It would merge what gradients compute again with what they are not to keep.
          optimization: { disable_specified_optimizers: "CommonSubexpressionElimination" },
          session: {
            // Waiting threads that spin gain nothing here, and take a core from other sessions and other programs.
            "intra_op.allow_spinning": "0",
            disable_prepacking: prepack ? "0" : "1",
            ...(weightsDirectory === undefined
              ? {}
              : { model_external_initializers_file_folder_path: weightsDirectory }),
          },
        },
      };
      const session = await api.InferenceSession.create(model, options).catch((error: unknown) => {
        throw new WorkerFailure("session-create", explain(error));
      });
      const id = ++created;
      sessions.set(id, session);
      return { session: id };
    },

    async run({ session: id, feeds, keep, write, omit }) {
      const api = await ort();
      const session = sessions.get(id);
      if (!session) throw new WorkerFailure("session-closed", "The session has been disposed of.");
      const inputs = Object.fromEntries(
        Object.entries(feeds).map(([name, value]) => [name, toOrt(api, value)]),
      );
      const wanted = session.outputNames.filter((name) => !omit.includes(name));
      const results = await session.run(inputs, wanted).catch((error: unknown) => {
        throw new WorkerFailure("session-run", explain(error));
      });
      const outputs: Record<string, Tensor> = {};
      const kept: Record<string, ResidentInfo> = {};
      for (const [name, result] of Object.entries(results)) {
        const dtype = result.type as DType;
        if (keep.includes(name)) {
          const resident = ++created;
          residents.set(resident, result);
          kept[name] = { resident, dtype, shape: result.dims };
        } else if (write[name]) copyInto(name, result, write[name]);
        else outputs[name] = { dtype, shape: result.dims, data: await read(result) };
      }
      return { outputs, kept };
    },

    async upload({ tensors }) {
      const api = await ort();
      const placed = Object.entries(tensors).map(([name, value]): [string, ResidentInfo] => {
        const resident = ++created;
        residents.set(resident, toOrt(api, value));
        return [name, { resident, dtype: value.dtype, shape: value.shape }];
      });
      return Object.fromEntries(placed);
    },

    async release({ resident }) {
      residents.get(resident)?.dispose();
      residents.delete(resident);
      return null;
    },

    async close({ session }) {
      await sessions.get(session)?.release();
      sessions.delete(session);
      return null;
    },
  };

/** Buffers of the reply that can be moved instead of copied: those that a tensor fills alone. */
function movable(reply: ReplyOf[Request["type"]]): ArrayBuffer[] {
  if (reply === null || !("outputs" in reply && "kept" in reply)) return [];
  const buffers = new Set<ArrayBuffer>();
  for (const { data, dtype } of Object.values((reply as ReplyOf["run"]).outputs))
    if (
      data.buffer instanceof ArrayBuffer &&
      data.byteLength === data.buffer.byteLength &&
      data instanceof typedArrays[dtype]
    )
      buffers.add(data.buffer);
  return [...buffers];
}

const { state } = workerData as { state: Int32Array };

/** Answers a request, unless the thread is about to be ended, which must not happen while this one runs. */
async function answer(message: RequestMessage): Promise<void> {
  Atomics.store(state, BUSY, 1);
  if (Atomics.load(state, STOPPING) === 0) await reply(message);
  Atomics.store(state, BUSY, 0);
  Atomics.notify(state, BUSY);
}

async function reply({ id, request }: RequestMessage): Promise<void> {
  const port = parentPort!;
  try {
    const handler = handlers[request.type] as (request: Request) => Promise<ReplyOf[Request["type"]]>;
    const result = await handler(request);
    port.postMessage({ id, reply: result } satisfies ReplyMessage, movable(result));
  } catch (error) {
    const code = error instanceof WorkerFailure ? error.code : "engine-failure";
    port.postMessage({ id, error: { message: explain(error), code } } satisfies ReplyMessage);
  }
}

/** Requests are answered one after the other, in the order they came. */
let queue = Promise.resolve();
parentPort?.on("message", (message: RequestMessage) => {
  queue = queue.then(() => answer(message));
});
