import type { Port, Value } from "../graph/index.ts";
import type { DType, Tensor } from "../tensor/index.ts";

/** A device that ONNX Runtime can run on. */
export type Device = "cpu" | "cuda" | "coreml" | "dml" | "webgpu";

export type EngineOptions = {
  /** Default "cpu". */
  device?: Device;
  /** Threads of one operator; by default as many as the process may use. */
  threads?: number;
};

/** A tensor that stays in the engine (or on the device) between runs. Dispose of it when it is no longer fed. */
export type ResidentTensor = {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly resident: number;
  dispose(): void;
};

export type Feeds = Readonly<Record<string, Tensor | ResidentTensor>>;

export type RunOptions = {
  /** Outputs to leave in the engine, for feeding to later runs. */
  keep?: readonly string[];
};

export type RunResult = {
  /** Outputs copied to JavaScript: all that are not kept. */
  readonly outputs: Readonly<Record<string, Tensor>>;
  readonly kept: Readonly<Record<string, ResidentTensor>>;
};

/** A program loaded into ONNX Runtime. */
export interface Session {
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
  /** @throws RuntimeFailure if an input is missing, of another dtype or shape, or ONNX Runtime fails. */
  run(feeds: Feeds, options?: RunOptions): Promise<RunResult>;
  dispose(): Promise<void>;
}

/** ONNX Runtime on a thread of its own: `run` and `create` block the thread they are called on. */
export interface Engine {
  readonly device: Device;
  /** Lowers the graph for the device, emits it and loads it. Inputs are fed under their names. */
  createSession(outputs: Readonly<Record<string, Value>>): Promise<Session>;
  dispose(): Promise<void>;
}
