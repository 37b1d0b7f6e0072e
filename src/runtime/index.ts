export type {
  Device,
  Engine,
  EngineOptions,
  Feeds,
  ResidentTensor,
  RunOptions,
  RunResult,
  Session,
} from "./types.ts";
