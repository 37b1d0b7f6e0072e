import { GraftError } from "../errors.ts";
import { ImageTextToTextLM, imageRows, type Seq2SeqLM } from "../models/index.ts";
import type { Engine, Feeds, RunResult, Session } from "../runtime/index.ts";
import { type Tensor, tensor, zeros } from "../tensor/index.ts";
import { CacheEditor, isIdentity, KeyValueCache, scoreRows, withRoom } from "./cache.ts";
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
import { picturesOf, sizeOf, stackPictures } from "./pictures.ts";
import { CHOICE, decoderProgram, encoderProgram, featureWidth, seq2seqCaches } from "./program.ts";
import { argmax } from "./sampler.ts";
import { VisionSessions } from "./vision-sessions.ts";

/**
 * An encoder–decoder loaded for generation: the source is encoded once, and what every layer of the decoder makes of it
 * stays in the engine; a text begins with the start token. Shorter sources are padded on the right.
 *
 * Sessions, each with its own part of the weights: the vision tower (one for each of the last two sizes of pictures), the encoder,
 * the decoder.
 */
export class Seq2SeqDecoder implements CachedDecoder<Seq2SeqLM> {
  readonly model: Seq2SeqLM;
  /** The decoder reads the start token and every token but the last. */
  readonly longestText: number;
  private readonly engine: Engine;
  private readonly encoder: Session;
  private readonly decoder: Session;
  private readonly vision: VisionSessions | undefined;
  private readonly caches: { readonly self: CacheEditor; readonly cross: CacheEditor };

  private constructor(model: Seq2SeqLM, engine: Engine, encoder: Session, decoder: Session) {
    this.model = model;
    this.longestText = model.maxPositions;
    this.engine = engine;
    this.encoder = encoder;
    this.decoder = decoder;
    this.vision = model instanceof ImageTextToTextLM ? new VisionSessions(model, engine) : undefined;
    const { self, cross } = seq2seqCaches(model);
    this.caches = { self: new CacheEditor(self, engine), cross: new CacheEditor(cross, engine) };
  }

  static async create(model: Seq2SeqLM, engine: Engine): Promise<Seq2SeqDecoder> {
    const features = model instanceof ImageTextToTextLM ? { features: model } : {};
    const encoder = await engine.createSession(encoderProgram(model, features));
    const decoder = await engine.createSession(decoderProgram(model), { prepack: true });
    return new Seq2SeqDecoder(model, engine, encoder, decoder);
  }

  begin(_source: Source, startTokenId: number | undefined): readonly number[] {
    return [startTokenId ?? this.model.decoderStartTokenId];
  }

  check({ tokens, pixelValues }: Source): void {
    const { model } = this;
    const reader = model instanceof ImageTextToTextLM ? model : undefined;
    if (pixelValues && !reader)
      throw new GraftError(`A ${model.modelType} model reads no pictures. Leave the picture out.`, {
        code: "no-pictures",
      });
    checkTokens(tokens, { model, isOther: (token) => token === reader?.imageTokenId });
    if (tokens.length > model.maxPositions)
      throw new GraftError(
        `The prompt has ${tokens.length} tokens, and the model's encoder has positions for ${model.maxPositions} (max_position_embeddings). Shorten the prompt.`,
        {
          code: "prompt-too-long",
          details: { promptLength: tokens.length, maxPositions: model.maxPositions },
        },
      );
    if (!reader) return;
    const pictures = pixelValues && picturesOf(pixelValues, reader);
    const features = pictures ? pictures.shape[0]! * reader.imageTokens(sizeOf(pictures)) : 0;
    imageRows(idTensor([tokens]), { imageTokenId: reader.imageTokenId, features });
  }

  async start(sources: readonly Source[], { padTokenId, startTokenId }: StartOptions): Promise<DecodingRun> {
    const { model, caches } = this;
    const tokens = sources.map((source) => source.tokens);
    const { padded, mask } = padRows(tokens, padTokenId ?? model.padTokenId, "right");
    const parameters = await uploadParameters(model, this.engine);
    const cross = new KeyValueCache(caches.cross);
    try {
      await this.encode(cross, { sources, padded, mask }, parameters);
    } catch (error) {
      releaseAll(parameters);
      throw error;
    }
    const start = startTokenId ?? model.decoderStartTokenId;
    return new Seq2SeqRun({
      decoder: this.decoder,
      self: new KeyValueCache(caches.self),
      cross,
      parameters,
      mask,
      sources: sources.map((_, i) => i),
      next: sources.map(() => start),
      length: 1,
    });
  }

  /** Fills the cache of the encoder's output. */
  private async encode(
    cross: KeyValueCache,
    { sources, padded, mask }: { sources: readonly Source[]; padded: number[][]; mask: number[][] },
    parameters: Uploaded,
  ): Promise<void> {
    const pictures = await this.pictureFeeds(sources, idTensor(padded), parameters);
    try {
      const { kept } = await this.encoder.run(
        {
          ...parameters,
          ...pictures,
          input_ids: idTensor(padded),
          attention_mask: maskTensor(mask),
        },
        cross.destinations,
      );
      cross.append(kept, padded[0]!.length);
    } finally {
      for (const value of Object.values(pictures)) if ("dispose" in value) value.dispose();
    }
  }

  async dispose(): Promise<void> {
    await Promise.all([
      this.vision?.dispose(),
      this.encoder.dispose(),
      this.decoder.dispose(),
      this.caches.self.dispose(),
      this.caches.cross.dispose(),
    ]);
  }

  /** Features of the pictures, and where they go. */
  private async pictureFeeds(
    sources: readonly Source[],
    inputIds: Tensor<"int64">,
    parameters: Uploaded,
  ): Promise<Feeds> {
    const { model } = this;
    if (!this.vision || !(model instanceof ImageTextToTextLM)) return {};
    const { imageTokenId } = model;
    const pictures = sources.flatMap(({ pixelValues }) =>
      pixelValues ? [picturesOf(pixelValues, model)] : [],
    );
    // Without pictures there is a feature that goes nowhere: the graph needs one to pick from.
    if (pictures.length === 0)
      return {
        features: zeros("float32", [1, 1, featureWidth(model)]),
        image_rows: imageRows(inputIds, { imageTokenId, features: 0 }),
      };
    const pixels = stackPictures(pictures);
    const size = sizeOf(pixels);
    const features = pixels.shape[0]! * model.imageTokens(size);
    const rows = imageRows(inputIds, { imageTokenId, features });
    return {
      features: await this.vision.features(size, { ...parameters, pixel_values: pixels }),
      image_rows: rows,
    };
  }
}

type Seq2SeqState = {
  readonly decoder: Session;
  readonly self: KeyValueCache;
  readonly cross: KeyValueCache;
  readonly parameters: Uploaded;
  /** Of each row's source, 0 where padding is. */
  mask: number[][];
  /** What each row is written about. */
  sources: number[];
  next: number[];
  /** Tokens read, `next` included. */
  length: number;
};

class Seq2SeqRun implements DecodingRun {
  private readonly state: Seq2SeqState;

  constructor(state: Seq2SeqState) {
    this.state = state;
  }

  async scores(): Promise<Float32Array[]> {
    const { outputs, kept } = await this.run(CHOICE);
    this.state.self.append(kept, 1);
    return scoreRows(outputs["logits"] as Tensor<"float32">);
  }

  async best(): Promise<number[]> {
    const { outputs, kept } = await this.run(["logits"]);
    const tokens = chosenTokens(outputs);
    if (!tokens) {
      releaseAll(kept);
      return (await this.scores()).map(argmax);
    }
    this.state.self.append(kept, 1);
    return tokens;
  }

  private async run(omit: readonly string[]): Promise<RunResult> {
    const { decoder, self, cross, parameters, mask, next, length } = this.state;
    const rows = next.length;
    await self.reserve();
    return decoder.run(
      {
        ...parameters,
        ...self.feeds(rows),
        ...cross.feeds(rows),
        decoder_input_ids: idTensor(next.map((token) => [token])),
        decoder_attention_mask: maskTensor(next.map(() => withRoom(Array<number>(length).fill(1), self))),
        places: tensor("int64", [1], BigInt64Array.of(BigInt(length - 1))),
        attention_mask: maskTensor(mask),
      },
      { ...self.destinations, omit },
    );
  }

  async push(tokens: readonly number[], rows: readonly number[]): Promise<void> {
    const { self, cross, mask, sources, next } = this.state;
    if (!isIdentity(rows, next.length)) {
      await self.gather(rows);
      const about = rows.map((row) => sources[row]!);
      const isSame = about.length === sources.length && about.every((source, i) => source === sources[i]);
      if (!isSame) await cross.gather(rows);
      this.state.sources = about;
      this.state.mask = rows.map((row) => mask[row]!);
    }
    this.state.next = [...tokens];
    this.state.length++;
  }

  release(): void {
    this.state.self.release();
    this.state.cross.release();
    releaseAll(this.state.parameters);
  }
}
