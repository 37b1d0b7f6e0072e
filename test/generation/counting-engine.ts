import type { Engine, Feeds, ResidentTensor, RunOptions, SessionOptions } from "../../src/runtime/index.ts";

/** An engine that knows which resident tensors have not been disposed of. */
export function countingEngine(engine: Engine): {
  engine: Engine;
  alive: Set<ResidentTensor>;
  largest: () => number;
} {
  const alive = new Set<ResidentTensor>();
  let largest = 0;
  const watch = (residents: Readonly<Record<string, ResidentTensor>>): void => {
    for (const resident of Object.values(residents)) {
      alive.add(resident);
      const dispose = resident.dispose.bind(resident);
      resident.dispose = () => {
        if (!alive.delete(resident)) throw new Error("disposed of twice");
        dispose();
      };
    }
    largest = Math.max(largest, alive.size);
  };
  const wrapped: Engine = {
    device: engine.device,
    version: engine.version,
    async upload(tensors) {
      const uploaded = await engine.upload(tensors);
      watch(uploaded);
      return uploaded;
    },
    dispose: async () => {
      throw new Error("a given engine must not be disposed of");
    },
    async createSession(outputs, options?: SessionOptions) {
      const session = await engine.createSession(outputs, options);
      return {
        inputs: session.inputs,
        outputs: session.outputs,
        dispose: () => session.dispose(),
        async run(feeds: Feeds, options?: RunOptions) {
          const result = await session.run(feeds, options);
          watch(result.kept);
          return result;
        },
      };
    },
  };
  return { engine: wrapped, alive, largest: () => largest };
}
