import { expect, test } from "vitest";
import { VisionSessions } from "../../src/generation/vision-sessions.ts";
import type { ImageTextToTextLM } from "../../src/models/index.ts";
import type { Engine, ResidentTensor, Session } from "../../src/runtime/index.ts";

/** An engine whose sessions say what becomes of them; a run ends when it is let. */
function watchedEngine() {
  const events: string[] = [];
  const waiting: (() => void)[] = [];
  let made = 0;
  let failing = false;
  const engine = {
    createSession: async () => {
      if (failing) throw new Error("no memory");
      const name = `session ${++made}`;
      events.push(`load ${name}`);
      return {
        run: async () => {
          await new Promise<void>((resolve) => waiting.push(resolve));
          if (events.includes(`unload ${name}`)) throw new Error(`${name} ran after it was unloaded`);
          return { outputs: {}, kept: { features: { resident: made } as ResidentTensor } };
        },
        dispose: async () => void events.push(`unload ${name}`),
      } as unknown as Session;
    },
  } as unknown as Engine;
  const letRun = async (): Promise<void> => {
    for (let i = 0; i < 20; i++) {
      await new Promise((resolve) => setImmediate(resolve));
      for (const resolve of waiting.splice(0)) resolve();
    }
  };
  const fail = (value: boolean): void => {
    failing = value;
  };
  return { engine, events, letRun, fail };
}

const model = { imageChannels: 3, imageFeatures: (x: unknown) => x } as unknown as ImageTextToTextLM;
const square = (size: number) => ({ height: size, width: size });

test("keeps the two sizes used last, and unloads one only when its runs have ended", async () => {
  const { engine, events, letRun } = watchedEngine();
  const vision = new VisionSessions(model, engine);
  const runs = [32, 64, 32, 96].map((size) => vision.features(square(size), {}));
  await letRun();
  await Promise.all(runs);
  expect(events).toEqual(["load session 1", "load session 2", "unload session 2", "load session 3"]);
  const again = vision.features(square(32), {});
  await letRun();
  await again;
  expect(events).toHaveLength(4);
  await vision.dispose();
  expect(events.slice(4).sort()).toEqual(["unload session 1", "unload session 3"]);
});

test("a size that could not be loaded is loaded when it comes again", async () => {
  const { engine, letRun, fail } = watchedEngine();
  const vision = new VisionSessions(model, engine);
  fail(true);
  await expect(vision.features(square(32), {})).rejects.toThrow("no memory");
  fail(false);
  const run = vision.features(square(32), {});
  await letRun();
  expect(await run).toMatchObject({ resident: 1 });
  await vision.dispose();
});
