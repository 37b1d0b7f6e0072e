import { emit, lower, readStorage } from "../../src/graph/index.ts";
import type { Engine, Session } from "../../src/runtime/index.ts";
import { lowerings } from "../../src/runtime/lowerings.ts";
import { type DType, type Tensor, typedArrays } from "../../src/tensor/index.ts";

/** A tensor as text, for the way between a page and its test. */
export type SentTensor = {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly base64: string;
};

/** What the test offers a page. */
export type Bridge = {
  createSession(model: string, weights: readonly { location: string; base64: string }[]): Promise<number>;
  run(session: number, feeds: Readonly<Record<string, SentTensor>>): Promise<Record<string, SentTensor>>;
  closeSession(session: number): Promise<void>;
};

export function toBase64({ buffer, byteOffset, byteLength }: ArrayBufferView): string {
  let text = "";
  for (const byte of new Uint8Array(buffer, byteOffset, byteLength)) text += String.fromCharCode(byte);
  return btoa(text);
}

export const fromBase64 = (base64: string): Uint8Array<ArrayBuffer> =>
  Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

export const sent = ({ dtype, shape, data }: Tensor): SentTensor => ({
  dtype,
  shape,
  base64: toBase64(data),
});

export const received = ({ dtype, shape, base64 }: SentTensor): Tensor =>
  ({ dtype, shape, data: new typedArrays[dtype](fromBase64(base64).buffer) }) as Tensor;

/** An engine for a page, whose graphs are run in the test's process; `onRun` is told what outputs each run gives. */
export const remoteEngine = (bridge: Bridge, onRun: (outputs: readonly string[]) => void): Engine => ({
  device: "cpu",
  version: "the test's",
  async createSession(outputs): Promise<Session> {
    const program = emit(lower(outputs, lowerings.cpu));
    const weights = program.memoryWeights.map(async ({ location, storage }) => ({
      location,
      base64: toBase64(await readStorage(storage)),
    }));
    const session = await bridge.createSession(toBase64(program.model), await Promise.all(weights));
    return {
      inputs: program.inputs,
      outputs: program.outputs,
      async run(feeds) {
        onRun(program.outputs.map(({ name }) => name));
        const read = program.inputs.map(({ name }) => [name, sent(feeds[name] as Tensor)] as const);
        const results = await bridge.run(session, Object.fromEntries(read));
        const tensors = Object.entries(results).map(([name, value]) => [name, received(value)] as const);
        return { outputs: Object.fromEntries(tensors), kept: {} };
      },
      dispose: () => bridge.closeSession(session),
    };
  },
  upload: () => Promise.reject(new Error("Nothing stays in this engine.")),
  dispose: async () => {},
});
