import type { CausalLM } from "../models/index.ts";
import type { Engine, ResidentTensor, Session } from "../runtime/index.ts";
import { type Tensor, tensor, zeros } from "../tensor/index.ts";
import { nextTokenProgram, pastName, presentName } from "./program.ts";

const PARTS = ["key", "value"] as const;

/** A model loaded for generation. Several texts may be decoded with it, one after the other. */
export class CachedDecoder {
  readonly model: CausalLM;
  private readonly session: Session;

  private constructor(model: CausalLM, session: Session) {
    this.model = model;
    this.session = session;
  }

  static async create(model: CausalLM, engine: Engine): Promise<CachedDecoder> {
    return new CachedDecoder(model, await engine.createSession(nextTokenProgram(model)));
  }

  /** Begins a batch of texts of equal padded length; `mask` has 0 where the padding (on the left) is. */
  start(prompts: readonly (readonly number[])[], mask: readonly (readonly number[])[]): DecodingRun {
    return new DecodingRun(this.model, this.session, prompts, mask);
  }

  dispose(): Promise<void> {
    return this.session.dispose();
  }
}

/** One batch being decoded: the cache stays in the engine, only scores come back. */
export class DecodingRun {
  private readonly model: CausalLM;
  private readonly session: Session;
  private readonly mask: number[][];
  private parameters: Record<string, Tensor> | undefined;
  private next: number[][];
  private cache: Record<string, ResidentTensor> = {};

  constructor(
    model: CausalLM,
    session: Session,
    prompts: readonly (readonly number[])[],
    mask: readonly (readonly number[])[],
  ) {
    this.model = model;
    this.session = session;
    this.next = prompts.map((prompt) => [...prompt]);
    this.mask = mask.map((row) => [...row]);
  }

  /** Scores of the token after what has been read, one row per text; then `push` the chosen ones. */
  async scores(): Promise<Float32Array[]> {
    this.parameters ??= await this.model.parameterFeeds();
    const { outputs, kept } = await this.session.run(
      { ...this.parameters, ...this.feeds() },
      { keep: this.session.outputs.map(({ name }) => name).filter((name) => name !== "logits") },
    );
    this.release();
    this.cache = { ...kept };
    const { data, shape } = outputs["logits"] as Tensor<"float32">;
    const width = shape[1]!;
    return this.next.map((_, row) => data.slice(row * width, (row + 1) * width));
  }

  /** Appends one token to every text. */
  push(tokens: readonly number[]): void {
    this.next = tokens.map((token) => [token]);
    for (const row of this.mask) row.push(1);
  }

  /** Frees the cache. */
  release(): void {
    for (const resident of Object.values(this.cache)) resident.dispose();
    this.cache = {};
  }

  private feeds(): Record<string, Tensor | ResidentTensor> {
    const [batch, sequence] = [this.next.length, this.next[0]!.length];
    const total = this.mask[0]!.length;
    // Positions count real tokens, as transformers' generate does; padding gets one that means nothing.
    const positions = this.mask.map((row) => {
      let count = 0;
      return row.map((real) => (real ? count++ : 0)).slice(total - sequence);
    });
    const longest = positions.flat().reduce((largest, position) => Math.max(largest, position), 0);
    return {
      input_ids: tensor("int64", [batch, sequence], BigInt64Array.from(this.next.flat(), BigInt)),
      attention_mask: tensor("float32", [batch, total], Float32Array.from(this.mask.flat())),
      position_ids: tensor("float32", [batch, sequence], Float32Array.from(positions.flat())),
      ...this.pastFeeds(batch),
      ...this.model.positionFeeds(longest + 1),
    };
  }

  private pastFeeds(batch: number): Record<string, Tensor | ResidentTensor> {
    const { layers, kvHeads, headDim } = this.model.cacheLayout;
    const empty = zeros("float32", [batch, kvHeads, 0, headDim]);
    const feeds: Record<string, Tensor | ResidentTensor> = {};
    for (let layer = 0; layer < layers; layer++)
      for (const part of PARTS) feeds[pastName(layer, part)] = this.cache[presentName(layer, part)] ?? empty;
    return feeds;
  }
}
