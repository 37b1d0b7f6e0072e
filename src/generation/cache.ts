import type { Engine, ResidentTensor, RunResult, Session } from "../runtime/index.ts";
import { type Tensor, tensor, zeros } from "../tensor/index.ts";
import { type CacheLayout, cachePorts, gatherProgram } from "./program.ts";

/** Picks rows of caches of one layout, inside the engine. Its session has no weights, and is made when it is first needed. */
export class RowGatherer {
  readonly layout: CacheLayout;
  private readonly engine: Engine;
  private session: Promise<Session> | undefined;

  constructor(layout: CacheLayout, engine: Engine) {
    this.layout = layout;
    this.engine = engine;
  }

  async gather(
    past: Record<string, Tensor | ResidentTensor>,
    rows: readonly number[],
  ): Promise<RunResult["kept"]> {
    this.session ??= this.engine.createSession(gatherProgram(this.layout));
    const session = await this.session;
    const index = tensor("int64", [rows.length], BigInt64Array.from(rows, BigInt));
    const { kept } = await session.run(
      { ...past, rows: index },
      { keep: session.outputs.map(({ name }) => name) },
    );
    return kept;
  }

  async dispose(): Promise<void> {
    await (await this.session)?.dispose();
  }
}

/** Keys and values that stay in the engine from one run to the next. */
export class KeyValueCache {
  private readonly gatherer: RowGatherer;
  private residents: RunResult["kept"] = {};

  constructor(gatherer: RowGatherer) {
    this.gatherer = gatherer;
  }

  /** What a program reads; nothing yet for a batch of `rows` before the first `replace`. */
  feeds(rows: number): Record<string, Tensor | ResidentTensor> {
    const { heads, headDim } = this.gatherer.layout;
    const empty = zeros("float32", [rows, heads, 0, headDim]);
    return Object.fromEntries(
      cachePorts(this.gatherer.layout).map(({ past, present }) => [past, this.residents[present] ?? empty]),
    );
  }

  /** Takes what a program kept, and frees what was there. */
  replace(kept: RunResult["kept"]): void {
    this.release();
    this.residents = kept;
  }

  /** Row i becomes what row `rows`[i] was. */
  async gather(rows: readonly number[]): Promise<void> {
    this.replace(await this.gatherer.gather(this.feeds(rows.length), rows));
  }

  release(): void {
    for (const resident of Object.values(this.residents)) resident.dispose();
    this.residents = {};
  }
}

/** Outputs of a session that a cache keeps. */
export const keptOutputs = (session: Session): string[] =>
  session.outputs.map(({ name }) => name).filter((name) => name.startsWith("present."));

/** The rows of a matrix of scores, as views. */
export function scoreRows({ data, shape }: Tensor<"float32">): Float32Array[] {
  const [rows, width] = shape as [number, number];
  return Array.from({ length: rows }, (_, row) => data.subarray(row * width, (row + 1) * width));
}

/** Whether `rows` picks each of `count` rows in its place. */
export const isIdentity = (rows: readonly number[], count: number): boolean =>
  rows.length === count && rows.every((row, i) => row === i);
