export type {
  Destination,
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
