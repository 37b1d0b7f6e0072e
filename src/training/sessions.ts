import type { Value } from "../graph/index.ts";
import type { ImageSize } from "../models/index.ts";
import type { Engine, Session } from "../runtime/index.ts";
import type { Prefix } from "./prefix-cache/index.ts";

/** Each holds the model's weights once: pictures of many sizes are loaded for again and again rather than fill the memory. */
const MAX_SESSIONS = 2;

/** What a graph is made for. */
export type GraphKind = {
  /** Pictures of a size, or none. */
  readonly image?: ImageSize | undefined;
  /** Whether rows hold several examples. */
  readonly packed?: boolean;
  /** How many blocks of queries causal attention takes. It does not tell graphs apart. */
  readonly attentionBlocks?: number;
};

/** A graph that is loaded, and the frozen values that it is fed, if some are kept. */
export type Loaded = { readonly session: Session; readonly kept: Prefix | undefined };
type Built = { readonly outputs: Record<string, Value>; readonly kept?: Prefix | undefined };

export const nameOfKind = ({ image, packed }: GraphKind): string =>
  image ? `${image.height} × ${image.width}` : packed ? "packed text" : "text";

/** A model's graphs that are loaded into an engine, one for each kind; of more than two the one used longest ago is unloaded. */
export class Sessions {
  private readonly engine: Engine;
  private readonly loaded = new Map<string, Loaded>();

  constructor(engine: Engine) {
    this.engine = engine;
  }

  /** The session for a kind, made of what `build` returns if need be. Run it before asking for another. */
  async get(kind: GraphKind, build: () => Promise<Built>): Promise<Loaded> {
    const key = nameOfKind(kind);
    const loaded = this.loaded.get(key) ?? (await this.load(build));
    this.loaded.delete(key);
    this.loaded.set(key, loaded); // as the last one used
    return loaded;
  }

  async dispose(): Promise<void> {
    for (const { session, kept } of this.loaded.values()) {
      await session.dispose();
      await kept?.release();
    }
    this.loaded.clear();
  }

  private async load(build: () => Promise<Built>): Promise<Loaded> {
    for (const [key, { session, kept }] of this.loaded) {
      if (this.loaded.size < MAX_SESSIONS) break;
      this.loaded.delete(key);
      await session.dispose();
      await kept?.release();
    }
    const { outputs, kept } = await build();
    return { session: await this.engine.createSession(outputs), kept };
  }
}
