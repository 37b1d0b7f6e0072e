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

/** A place in a resident tensor: from `at` on along `axis`, and all of every other axis. */
export type Destination = { readonly into: ResidentTensor; readonly axis: number; readonly at: number };

export type RunOptions = {
  /** Outputs to leave in the engine, for feeding to later runs. */
  keep?: readonly string[];
  /** Outputs to write into tensors that stay in the engine, which are not copied for it; the run may read those as well. */
  write?: Readonly<Record<string, Destination>>;
  /** Outputs that nobody wants this time. */
  omit?: readonly string[];
};

export type SessionOptions = {
  /**
   * Lays out the weights anew for products with few rows, as when one token is read at a time. It takes time at loading, and
   * memory where a weight is also read otherwise. Default: false.
   */
  prepack?: boolean;
  /**
   * Whether ONNX Runtime looks for a faster graph. For one of thousands of nodes that takes seconds, which a program that runs once
   * does not give back. Default: true.
   */
  optimize?: boolean;
};

export type RunResult = {
  /** Outputs copied to JavaScript: all that are neither kept nor written nor omitted. */
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
  /** What computes, and where, e.g. "onnxruntime-node 1.30.0 cpu": results of another may differ in rounding. */
  readonly version: string;
  /** Lowers the graph for the device, emits it and loads it. Inputs are fed under their names. */
  createSession(outputs: Readonly<Record<string, Value>>, options?: SessionOptions): Promise<Session>;
  /** Copies tensors into the engine, for feeding to many runs. */
  upload(tensors: Readonly<Record<string, Tensor>>): Promise<Readonly<Record<string, ResidentTensor>>>;
  dispose(): Promise<void>;
}
