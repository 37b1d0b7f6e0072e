import { GraftError } from "../errors.ts";
import type { CausalLM } from "../models/index.ts";
import type { Engine, Feeds, RunResult, Session } from "../runtime/index.ts";
import { type Tensor, tensor } from "../tensor/index.ts";
import { CacheEditor, isIdentity, KeyValueCache, placeTensor, scoreRows, withRoom } from "./cache.ts";
import {
  type CachedDecoder,
  checkTokens,
  chosenTokens,
  type DecodingRun,
  idTensor,
  maskTensor,
  padRows,
  releaseAll,
  type Source,
  type StartOptions,
  type Uploaded,
  uploadParameters,
} from "./decoding.ts";
import { CHOICE, causalCache, nextTokenProgram } from "./program.ts";
import { argmax } from "./sampler.ts";

/** A causal model loaded for generation: a text goes on from its prompt. Shorter prompts are padded on the left. */
export class CausalDecoder implements CachedDecoder<CausalLM> {
  readonly model: CausalLM;
  readonly longestText = undefined;
  private readonly engine: Engine;
  private readonly session: Session;
  private readonly caches: CacheEditor;

  private constructor(model: CausalLM, engine: Engine, session: Session) {
    this.model = model;
    this.engine = engine;
    this.session = session;
    this.caches = new CacheEditor(causalCache(model), engine);
  }

  static async create(model: CausalLM, engine: Engine): Promise<CausalDecoder> {
    const session = await engine.createSession(nextTokenProgram(model), { prepack: true });
    return new CausalDecoder(model, engine, session);
  }

  begin({ tokens }: Source): readonly number[] {
    return tokens;
  }

  check({ tokens, pixelValues }: Source): void {
    if (pixelValues)
      throw new GraftError(`A ${this.model.modelType} model reads no pictures. Leave the picture out.`, {
        code: "no-pictures",
      });
    checkTokens(tokens, { model: this.model });
  }

  async start(sources: readonly Source[], { padTokenId }: StartOptions): Promise<DecodingRun> {
    const prompts = sources.map(({ tokens }) => tokens);
    const { padded, mask } = padRows(prompts, padTokenId ?? this.model.padTokenId, "left");
    return new CausalRun({
      model: this.model,
      session: this.session,
      cache: new KeyValueCache(this.caches),
      parameters: await uploadParameters(this.model, this.engine),
      next: padded,
      mask,
    });
  }

  async dispose(): Promise<void> {
    await Promise.all([this.session.dispose(), this.caches.dispose()]);
  }
}

type CausalState = {
  readonly model: CausalLM;
  readonly session: Session;
  readonly cache: KeyValueCache;
  readonly parameters: Uploaded;
  /** What is to be read. */
  next: number[][];
  /** 0 where padding is. */
  mask: number[][];
};

class CausalRun implements DecodingRun {
  private readonly state: CausalState;

  constructor(state: CausalState) {
    this.state = state;
  }

  async scores(): Promise<Float32Array[]> {
    const { outputs, kept } = await this.run(CHOICE);
    this.append(kept);
    return scoreRows(outputs["logits"] as Tensor<"float32">);
  }

  async best(): Promise<number[]> {
    const { outputs, kept } = await this.run(["logits"]);
    const tokens = chosenTokens(outputs);
    if (!tokens) {
      releaseAll(kept);
      return (await this.scores()).map(argmax);
    }
    this.append(kept);
    return tokens;
  }

  async push(tokens: readonly number[], rows: readonly number[]): Promise<void> {
    const { cache, next, mask } = this.state;
    if (!isIdentity(rows, next.length)) await cache.gather(rows);
    this.state.next = tokens.map((token) => [token]);
    this.state.mask = rows.map((row) => [...mask[row]!, 1]);
  }

  release(): void {
    this.state.cache.release();
    releaseAll(this.state.parameters);
  }

  private async run(omit: readonly string[]): Promise<RunResult> {
    const { session, cache, parameters, next } = this.state;
    await cache.reserve();
    const feeds = { ...parameters, ...this.feeds(), ...cache.feeds(next.length) };
    return session.run(feeds, { ...cache.destinations, omit });
  }

  private append(kept: RunResult["kept"]): void {
    this.state.cache.append(kept, this.state.next[0]!.length);
  }

  private feeds(): Feeds {
    const { model, cache, next, mask } = this.state;
    const [batch, sequence] = [next.length, next[0]!.length];
    const total = mask[0]!.length;
    // Positions count real tokens, as transformers' generate does; padding gets one that means nothing.
    const positions = mask.map((row) => {
      let count = 0;
      return row.map((real) => (real ? count++ : 0)).slice(total - sequence);
    });
    const longest = positions.flat().reduce((largest, position) => Math.max(largest, position), 0);
    return {
      input_ids: idTensor(next),
      attention_mask: maskTensor(mask.map((row) => withRoom(row, cache))),
      places: placeTensor(total, cache),
      position_ids: tensor("float32", [batch, sequence], Float32Array.from(positions.flat())),
      ...model.positionFeeds(longest + 1),
    };
  }
}
