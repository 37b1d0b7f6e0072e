import type { ImageSize, ImageTextToTextLM } from "../models/index.ts";
import type { Engine, Feeds, ResidentTensor, Session } from "../runtime/index.ts";
import { visionProgram } from "./program.ts";

/** Each holds the tower's weights once: pictures of many sizes are loaded for again and again rather than fill the memory. */
const MAX_SESSIONS = 2;

type Loaded = {
  readonly session: Promise<Session> /** Settles when its runs have ended. */;
  idle: Promise<unknown>;
};

/** The vision tower, loaded for each size of pictures; of more than two sizes the one used longest ago is unloaded. */
export class VisionSessions {
  private readonly model: ImageTextToTextLM;
  private readonly engine: Engine;
  private readonly loaded = new Map<string, Loaded>();

  constructor(model: ImageTextToTextLM, engine: Engine) {
    this.model = model;
    this.engine = engine;
  }

  /** Features of pictures of one size, [images, tokens, hidden], which stay in the engine. */
  async features(size: ImageSize, feeds: Feeds): Promise<ResidentTensor> {
    const key = `${size.height} × ${size.width}`;
    const used = this.loaded.get(key) ?? this.load(size);
    this.loaded.delete(key);
    this.loaded.set(key, used); // as the last one used
    const run = used.session.then((session) => session.run(feeds, { keep: ["features"] }));
    used.idle = Promise.allSettled([used.idle, run]);
    used.session.catch(() => this.loaded.get(key) === used && this.loaded.delete(key));
    return (await run).kept["features"]!;
  }

  async dispose(): Promise<void> {
    await Promise.all([...this.loaded.keys()].map((key) => this.unload(key)));
  }

  private load(size: ImageSize): Loaded {
    const leaving = [...this.loaded.keys()].slice(0, Math.max(0, this.loaded.size - MAX_SESSIONS + 1));
    const unloaded = Promise.all(leaving.map((key) => this.unload(key)));
    const session = unloaded.then(() => this.engine.createSession(visionProgram(this.model, size)));
    return { session, idle: session.catch(() => {}) };
  }

  private async unload(key: string): Promise<void> {
    const { session, idle } = this.loaded.get(key)!;
    this.loaded.delete(key);
    await idle;
    await (await session).dispose();
  }
}
