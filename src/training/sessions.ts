import type { Value } from "../graph/index.ts";
import type { ImageSize } from "../models/index.ts";
import type { Engine, Session } from "../runtime/index.ts";

/** Each holds the model's weights once: pictures of many sizes are loaded for again and again rather than fill the memory. */
const MAX_SESSIONS = 2;

/** What a graph is made for. */
export type GraphKind = {
  /** Pictures of a size, or none. */
  readonly image?: ImageSize | undefined;
  /** Whether rows hold several examples. */
  readonly packed?: boolean;
};

/** A model's graphs that are loaded into an engine, one for each kind; of more than two the one used longest ago is unloaded. */
export class Sessions {
  private readonly engine: Engine;
  private readonly loaded = new Map<string, Session>();

  constructor(engine: Engine) {
    this.engine = engine;
  }

  /** The session for a kind, made of what `build` returns if need be. Run it before asking for another. */
  async get({ image, packed }: GraphKind, build: () => Record<string, Value>): Promise<Session> {
    const key = image ? `${image.height} × ${image.width}` : packed ? "packed text" : "text";
    const session = this.loaded.get(key) ?? (await this.load(build));
    this.loaded.delete(key);
    this.loaded.set(key, session); // as the last one used
    return session;
  }

  async dispose(): Promise<void> {
    for (const session of this.loaded.values()) await session.dispose();
    this.loaded.clear();
  }

  private async load(build: () => Record<string, Value>): Promise<Session> {
    for (const [key, oldest] of this.loaded) {
      if (this.loaded.size < MAX_SESSIONS) break;
      this.loaded.delete(key);
      await oldest.dispose();
    }
    return this.engine.createSession(build());
  }
}
