import type { Engine, Feeds, ResidentTensor, RunOptions } from "../../src/runtime/index.ts";

/** An engine that knows which resident tensors have not been disposed of. */
export function countingEngine(engine: Engine): {
  engine: Engine;
  alive: Set<ResidentTensor>;
  largest: () => number;
} {
  const alive = new Set<ResidentTensor>();
  let largest = 0;
  const wrapped: Engine = {
    device: engine.device,
    dispose: async () => {
      throw new Error("a given engine must not be disposed of");
    },
    async createSession(outputs) {
      const session = await engine.createSession(outputs);
      return {
        inputs: session.inputs,
        outputs: session.outputs,
        dispose: () => session.dispose(),
        async run(feeds: Feeds, options?: RunOptions) {
          const result = await session.run(feeds, options);
          for (const resident of Object.values(result.kept)) {
            alive.add(resident);
            const dispose = resident.dispose.bind(resident);
            resident.dispose = () => {
              if (!alive.delete(resident)) throw new Error("disposed of twice");
              dispose();
            };
          }
          largest = Math.max(largest, alive.size);
          return result;
        },
      };
    },
  };
  return { engine: wrapped, alive, largest: () => largest };
}
