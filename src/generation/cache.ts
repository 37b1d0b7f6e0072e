import type { Engine, ResidentTensor, RunOptions, RunResult, Session } from "../runtime/index.ts";
import { type Tensor, tensor, zeros } from "../tensor/index.ts";
import { type CacheLayout, cachePorts, gatherProgram, growProgram } from "./program.ts";

/** Tokens that a cache gets room for at a time. Room costs attention to nothing; making it costs a copy of the cache. */
const ROOM = 64;

type Feeds = Record<string, Tensor | ResidentTensor>;
type Kept = RunResult["kept"];

/** Changes caches of one layout as a whole, inside the engine. Its sessions have no weights, and are made when they are first needed. */
export class CacheEditor {
  readonly layout: CacheLayout;
  private readonly engine: Engine;
  private gathering: Promise<Session> | undefined;
  private growing: Promise<Session> | undefined;

  constructor(layout: CacheLayout, engine: Engine) {
    this.layout = layout;
    this.engine = engine;
  }

  /** Row i of the result is row `rows`[i] of the cache. */
  gather(past: Feeds, rows: readonly number[]): Promise<Kept> {
    this.gathering ??= this.engine.createSession(gatherProgram(this.layout));
    const index = tensor("int64", [rows.length], BigInt64Array.from(rows, BigInt));
    return this.edit(this.gathering, { ...past, rows: index });
  }

  /** The cache with room for `ROOM` more tokens. */
  grow(past: Feeds): Promise<Kept> {
    this.growing ??= this.engine.createSession(growProgram(this.layout, ROOM));
    return this.edit(this.growing, past);
  }

  async dispose(): Promise<void> {
    await Promise.all([this.gathering, this.growing].map(async (session) => (await session)?.dispose()));
  }

  private async edit(made: Promise<Session>, feeds: Feeds): Promise<Kept> {
    const session = await made;
    return (await session.run(feeds, { keep: session.outputs.map(({ name }) => name) })).kept;
  }
}

/**
 * Keys and values that stay in the engine from one run to the next. What the first run leaves becomes the cache; what later
 * ones leave is written into it in place, in room that is made for many tokens at a time.
 */
export class KeyValueCache {
  private readonly editor: CacheEditor;
  private residents: Kept = {};
  private used = 0;

  constructor(editor: CacheEditor) {
    this.editor = editor;
  }

  /** Tokens that are cached. */
  get length(): number {
    return this.used;
  }

  /** Tokens that the cache has room for, those cached included. */
  get capacity(): number {
    return Object.values(this.residents)[0]?.shape[2] ?? 0;
  }

  /** What a program reads; nothing yet for a batch of `rows` before the first run. */
  feeds(rows: number): Feeds {
    const { heads, headDim } = this.editor.layout;
    const empty = zeros("float32", [rows, heads, 0, headDim]);
    return Object.fromEntries(
      cachePorts(this.editor.layout).map(({ past, present }) => [past, this.residents[present] ?? empty]),
    );
  }

  /** Makes sure that a token more can be cached. Call it before `feeds`. */
  async reserve(): Promise<void> {
    if (this.used > 0 && this.used === this.capacity) this.replace(await this.editor.grow(this.feeds(0)));
  }

  /** What a run is to do with the keys and values of the tokens it reads. */
  get destinations(): Pick<RunOptions, "keep" | "write"> {
    const ports = cachePorts(this.editor.layout).map(({ present }) => present);
    if (this.used === 0) return { keep: ports };
    const write = ports.map(
      (name) => [name, { into: this.residents[name]!, axis: 2, at: this.used }] as const,
    );
    return { write: Object.fromEntries(write) };
  }

  /** Takes note of a run that has read `tokens` tokens with `destinations`. */
  append(kept: Kept, tokens: number): void {
    if (this.used === 0) this.replace(kept);
    this.used += tokens;
  }

  /** Row i becomes what row `rows`[i] was. */
  async gather(rows: readonly number[]): Promise<void> {
    this.replace(await this.editor.gather(this.feeds(rows.length), rows));
  }

  release(): void {
    for (const resident of Object.values(this.residents)) resident.dispose();
    this.residents = {};
  }

  private replace(kept: Kept): void {
    this.release();
    this.residents = kept;
  }
}

/** `values` of cached and of new tokens, with zeros between them where the cache has room. */
export function withRoom(values: readonly number[], { length, capacity }: KeyValueCache): number[] {
  return [...values.slice(0, length), ...Array<number>(capacity - length).fill(0), ...values.slice(length)];
}

/** Where cached and new tokens are in a text of `total` tokens. */
export function placeTensor(total: number, cache: KeyValueCache): Tensor<"float32"> {
  const places = withRoom(
    Array.from({ length: total }, (_, i) => i),
    cache,
  );
  return tensor("float32", [places.length], Float32Array.from(places));
}

/** The rows of a matrix of scores, as views. */
export function scoreRows({ data, shape }: Tensor<"float32">): Float32Array[] {
  const [rows, width] = shape as [number, number];
  return Array.from({ length: rows }, (_, row) => data.subarray(row * width, (row + 1) * width));
}

/** Whether `rows` picks each of `count` rows in its place. */
export const isIdentity = (rows: readonly number[], count: number): boolean =>
  rows.length === count && rows.every((row, i) => row === i);
