import { GraftError } from "../errors.ts";
import { type ImageSize, ImageTextToTextLM, imageRows, type Seq2SeqLM } from "../models/index.ts";
import type { Engine, ResidentTensor, Session } from "../runtime/index.ts";
import { type Tensor, zeros } from "../tensor/index.ts";
import { isIdentity, KeyValueCache, keptOutputs, RowGatherer, scoreRows } from "./cache.ts";
import {
  type CachedDecoder,
  checkTokens,
  type DecodingRun,
  idTensor,
  maskTensor,
  padRows,
  type Source,
  type StartOptions,
} from "./decoding.ts";
import { picturesOf, sizeOf, stackPictures } from "./pictures.ts";
import { decoderProgram, encoderProgram, featureWidth, seq2seqCaches, visionProgram } from "./program.ts";

/**
 * An encoder–decoder loaded for generation: the source is encoded once, and what every layer of the decoder makes of it
 * stays in the engine; a text begins with the start token. Shorter sources are padded on the right.
 *
 * Sessions, each with its own part of the weights: the vision tower (one for each size of pictures that comes), the encoder,
 * the decoder.
 */
export class Seq2SeqDecoder implements CachedDecoder<Seq2SeqLM> {
  readonly model: Seq2SeqLM;
  /** The decoder reads the start token and every token but the last. */
  readonly longestText: number;
  private readonly engine: Engine;
  private readonly encoder: Session;
  private readonly decoder: Session;
  private readonly vision = new Map<string, Promise<Session>>();
  private readonly gatherers: { readonly self: RowGatherer; readonly cross: RowGatherer };

  private constructor(model: Seq2SeqLM, engine: Engine, encoder: Session, decoder: Session) {
    this.model = model;
    this.longestText = model.maxPositions;
    this.engine = engine;
    this.encoder = encoder;
    this.decoder = decoder;
    const { self, cross } = seq2seqCaches(model);
    this.gatherers = { self: new RowGatherer(self, engine), cross: new RowGatherer(cross, engine) };
  }

  static async create(model: Seq2SeqLM, engine: Engine): Promise<Seq2SeqDecoder> {
    const features = model instanceof ImageTextToTextLM ? { features: model } : {};
    const encoder = await engine.createSession(encoderProgram(model, features));
    return new Seq2SeqDecoder(model, engine, encoder, await engine.createSession(decoderProgram(model)));
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
    const { model, gatherers } = this;
    const tokens = sources.map((source) => source.tokens);
    const { padded, mask } = padRows(tokens, padTokenId ?? model.padTokenId, "right");
    const parameters = await model.parameterFeeds();
    const cross = new KeyValueCache(gatherers.cross);
    const pictures = await this.pictureFeeds(sources, idTensor(padded), parameters);
    try {
      const { kept } = await this.encoder.run(
        {
          ...parameters,
          ...pictures,
          input_ids: idTensor(padded),
          attention_mask: maskTensor(mask),
        },
        { keep: keptOutputs(this.encoder) },
      );
      cross.replace(kept);
    } finally {
      for (const value of Object.values(pictures)) if ("dispose" in value) value.dispose();
    }
    const start = startTokenId ?? model.decoderStartTokenId;
    return new Seq2SeqRun({
      decoder: this.decoder,
      self: new KeyValueCache(gatherers.self),
      cross,
      parameters,
      mask,
      sources: sources.map((_, i) => i),
      next: sources.map(() => start),
      length: 1,
    });
  }

  async dispose(): Promise<void> {
    const visions = await Promise.all(this.vision.values());
    await Promise.all([
      ...visions.map((session) => session.dispose()),
      this.encoder.dispose(),
      this.decoder.dispose(),
      this.gatherers.self.dispose(),
      this.gatherers.cross.dispose(),
    ]);
  }

  /** Features of the pictures, and where they go. */
  private async pictureFeeds(
    sources: readonly Source[],
    inputIds: Tensor<"int64">,
    parameters: Record<string, Tensor>,
  ): Promise<Record<string, Tensor | ResidentTensor>> {
    const { model } = this;
    if (!(model instanceof ImageTextToTextLM)) return {};
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
    const session = await this.visionSession(model, size);
    const { kept } = await session.run({ ...parameters, pixel_values: pixels }, { keep: ["features"] });
    return { features: kept["features"]!, image_rows: rows };
  }

  private visionSession(model: ImageTextToTextLM, size: ImageSize): Promise<Session> {
    const key = `${size.height}x${size.width}`;
    const session = this.vision.get(key) ?? this.engine.createSession(visionProgram(model, size));
    this.vision.set(key, session);
    return session;
  }
}

type Seq2SeqState = {
  readonly decoder: Session;
  readonly self: KeyValueCache;
  readonly cross: KeyValueCache;
  readonly parameters: Record<string, Tensor>;
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
    const { decoder, self, cross, parameters, mask, next, length } = this.state;
    const rows = next.length;
    const { outputs, kept } = await decoder.run(
      {
        ...parameters,
        ...self.feeds(rows),
        ...cross.feeds(rows),
        decoder_input_ids: idTensor(next.map((token) => [token])),
        decoder_attention_mask: maskTensor(next.map(() => Array<number>(length).fill(1))),
        attention_mask: maskTensor(mask),
      },
      { keep: keptOutputs(decoder) },
    );
    self.replace(kept);
    return scoreRows(outputs["logits"] as Tensor<"float32">);
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
  }
}
