import type { DType, Tensor } from "../tensor/index.ts";
import type { Device } from "./types.ts";

/** Places in the memory that both sides share: whether the thread works on a request, and whether it is to start none. */
export const BUSY = 0;
export const STOPPING = 1;

/** Messages between the engine and its thread. Every request has one reply with the same id. */
export type WireTensor = Tensor | { readonly resident: number };

export type WireDestination = { readonly resident: number; readonly axis: number; readonly at: number };

export type Request =
  | { readonly type: "devices" }
  | {
      readonly type: "create";
      readonly model: Uint8Array;
      readonly device: Device;
      readonly threads: number;
      readonly weightsDirectory: string | undefined;
      readonly memoryWeights: readonly { readonly location: string; readonly bytes: Uint8Array }[];
      readonly prepack: boolean;
      readonly optimize: boolean;
    }
  | {
      readonly type: "run";
      readonly session: number;
      readonly feeds: Readonly<Record<string, WireTensor>>;
      readonly keep: readonly string[];
      readonly write: Readonly<Record<string, WireDestination>>;
      readonly omit: readonly string[];
    }
  | { readonly type: "upload"; readonly tensors: Readonly<Record<string, Tensor>> }
  | { readonly type: "release"; readonly resident: number }
  | { readonly type: "close"; readonly session: number };

export type ResidentInfo = {
  readonly resident: number;
  readonly dtype: DType;
  readonly shape: readonly number[];
};

export type ReplyOf = {
  devices: { readonly name: Device; readonly bundled: boolean }[];
  create: { readonly session: number };
  run: { readonly outputs: Record<string, Tensor>; readonly kept: Record<string, ResidentInfo> };
  upload: Record<string, ResidentInfo>;
  release: null;
  close: null;
};

export type RequestMessage = { readonly id: number; readonly request: Request };
export type ReplyMessage =
  | { readonly id: number; readonly reply: ReplyOf[Request["type"]] }
  | { readonly id: number; readonly error: { readonly message: string; readonly code: string } };
