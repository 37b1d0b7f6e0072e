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

/** A graph, and the frozen values that it is fed, if some are kept. */
type Built = { readonly outputs: Record<string, Value>; readonly kept?: Prefix | undefined };
type Graph = { readonly built: Built; session: Session | undefined };
/** The same, loaded. */
export type Loaded = { readonly session: Session; readonly kept: Prefix | undefined };

export const nameOfKind = ({ image, packed }: GraphKind): string =>
  image ? `${image.height} × ${image.width}` : packed ? "packed text" : "text";

/** A model's graphs that are loaded into an engine, one for each kind; of more than two the one used longest ago is given up. */
export class Sessions {
  private readonly engine: Engine;
  private readonly graphs = new Map<string, Graph>();

  constructor(engine: Engine) {
    this.engine = engine;
  }

  /** The session for a kind, made of what `build` returns if need be. Run it before asking for another. */
  async get(kind: GraphKind, build: () => Promise<Built>): Promise<Loaded> {
    const key = nameOfKind(kind);
    const known = this.graphs.get(key);
    if (!known) await this.makeRoom();
    const built = known?.built ?? (await build());
    const session = known?.session ?? (await this.engine.createSession(built.outputs));
    this.graphs.delete(key);
    this.graphs.set(key, { built, session }); // as the last one used
    return { session, kept: built.kept };
  }

  /** Frees the sessions. The graphs stay, to be loaded again. */
  async unload(): Promise<void> {
    for (const graph of this.graphs.values()) await free(graph);
  }

  /** Gives up the graph of a kind, if it is there. */
  async drop(kind: GraphKind): Promise<void> {
    const key = nameOfKind(kind);
    const graph = this.graphs.get(key);
    this.graphs.delete(key);
    if (graph) await free(graph);
  }

  async dispose(): Promise<void> {
    await this.unload();
    this.graphs.clear();
  }

  private async makeRoom(): Promise<void> {
    for (const [key, graph] of this.graphs) {
      if (this.graphs.size < MAX_SESSIONS) break;
      this.graphs.delete(key);
      await free(graph);
    }
  }
}

/** Unloads a graph. */
async function free(graph: Graph): Promise<void> {
  const { session } = graph;
  graph.session = undefined;
  await session?.dispose();
  await graph.built.kept?.release();
}
