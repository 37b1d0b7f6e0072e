import type { Value } from "../../src/graph/index.ts";
import type { Engine, Session } from "../../src/runtime/index.ts";

/** What an engine was asked for, by the kind of program: "kept" gives what is kept, "feature" what of it follows from pictures. */
export type Counts = {
  engine: Engine;
  /** Runs of programs of a kind. */
  runs: (kind: "kept" | "feature") => number;
  /** Pictures that programs of any kind were fed, one after the other. */
  pictures: () => number;
  /** Programs of the frozen part that are loaded. */
  open: () => number;
  /** How often each program of other kinds was loaded. */
  loads: () => number[];
};

/** An engine that counts what is asked of another. */
export function countingEngine(engine: () => Engine): Counts {
  const runs = { kept: 0, feature: 0 };
  let [pictures, open] = [0, 0];
  const loads = new Map<object, number>();
  const kindOf = (outputs: Readonly<Record<string, Value>>): keyof typeof runs | undefined =>
    (["kept", "feature"] as const).find((kind) =>
      Object.keys(outputs).every((name) => name.startsWith(`${kind}.`)),
    );
  const wrapped: Engine = {
    ...{ device: engine().device, version: engine().version },
    upload: (tensors) => engine().upload(tensors),
    dispose: async () => {},
    async createSession(outputs: Readonly<Record<string, Value>>): Promise<Session> {
      const session = await engine().createSession(outputs);
      const kind = kindOf(outputs);
      const readsPictures = session.inputs.some(({ name }) => name === "pixel_values");
      if (kind) open++;
      else loads.set(outputs, (loads.get(outputs) ?? 0) + 1);
      return {
        ...{ inputs: session.inputs, outputs: session.outputs },
        run(feeds, options) {
          if (kind) runs[kind]++;
          if (readsPictures) pictures += feeds["pixel_values"]!.shape[0]!;
          return session.run(feeds, options);
        },
        dispose() {
          if (kind) open--;
          return session.dispose();
        },
      };
    },
  };
  return {
    engine: wrapped,
    runs: (kind) => runs[kind],
    pictures: () => pictures,
    open: () => open,
    loads: () => [...loads.values()],
  };
}
