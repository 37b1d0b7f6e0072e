import { availableParallelism } from "node:os";
import type { Device, Engine } from "../runtime/index.ts";
import { type FlagValues, number, text } from "./flags.ts";

export const engineFlags = {
  device: text('What to compute on; "list" shows what there is. Default: cpu.', { placeholder: "name" }),
  threads: number("CPU threads. Default: all.", {}, (n) =>
    Number.isSafeInteger(n) && n >= 1 ? undefined : "must be a whole number of at least 1",
  ),
};

/** CPU threads that are used. */
export const threadsOf = ({ threads }: FlagValues<typeof engineFlags>): number =>
  threads ?? availableParallelism();

/** @throws RuntimeFailure if ONNX Runtime is missing or the device is not there. */
export async function openEngine({ device, threads }: FlagValues<typeof engineFlags>): Promise<Engine> {
  const { createEngine } = await import("../runtime/node.ts");
  return createEngine({
    ...(device !== undefined && { device: device as Device }), // checked by the engine
    ...(threads !== undefined && { threads }),
  });
}
