import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { describe, expect, onTestFinished, test } from "vitest";
import { GraftError } from "../../src/errors.ts";
import {
  type GenerationOptions,
  type TextCodec,
  TextGenerator,
  type TextGeneratorOptions,
} from "../../src/generation/index.ts";
import {
  AutoModelForImageTextToText,
  type LanguageModel,
  type Seq2SeqLM,
  seq2seqFeeds,
  seq2seqInputs,
} from "../../src/models/index.ts";
import { Florence2Processor } from "../../src/processing/index.ts";
import { tensor } from "../../src/tensor/index.ts";
import { florence2Cases } from "../models/florence2-case.ts";
import { int64, seq2seqCases } from "../models/seq2seq-case.ts";
import { ReferenceCase } from "../support/reference-case.ts";
import { sharedEngine } from "../support/run-graph.ts";
import { answeringModel, pictureFile, recordedAnswers, shownText } from "./answers.ts";
import { countingEngine } from "./counting-engine.ts";
import { linePictures } from "./recorded-case.ts";

const engine = sharedEngine({ threads: 1 });
const bart = seq2seqCases().find(({ expected }) => expected.name === "bart-tied-gelu")!;
const source = bart.expected.batch.input_ids[0]!;

async function generatorFor(model: LanguageModel, options: TextGeneratorOptions = {}) {
  const generator = await TextGenerator.create(model, { engine: engine(), ...options });
  onTestFinished(() => generator.dispose());
  return generator;
}

async function rejection(promise: Promise<unknown>): Promise<GraftError> {
  const error: unknown = await promise.then(
    () => new Error("nothing failed"),
    (error: unknown) => error,
  );
  if (error instanceof GraftError) return error;
  throw error;
}

/** ln p of every next token after each beginning of a text, without caches: [tokens][vocabulary]. */
async function withoutCache<T>(
  model: Seq2SeqLM,
  use: (
    logProbabilities: (source: readonly number[], text: readonly number[]) => Promise<Float64Array[]>,
  ) => Promise<T>,
): Promise<T> {
  const inputs = seq2seqInputs();
  const { hidden } = model.decode({ ...inputs, encoderHidden: model.encode(inputs) });
  const session = await engine().createSession({ logits: model.logits(hidden) });
  const parameters = await model.parameterFeeds();
  try {
    return await use(async (about, text) => {
      const read = [model.decoderStartTokenId, ...text.slice(0, -1)];
      const feeds = seq2seqFeeds(model, {
        inputIds: int64([[...about]]),
        attentionMask: int64([about.map(() => 1)]),
        labels: int64([[...text]]),
        decoderInputIds: int64([read]),
      });
      const { outputs } = await session.run({ ...parameters, ...feeds });
      const logits = outputs["logits"]!.data as Float32Array;
      return text.map((_, place) => {
        const row = Float64Array.from(
          logits.subarray(place * model.vocabSize, (place + 1) * model.vocabSize),
        );
        const total = Math.log(row.reduce((sum, score) => sum + Math.exp(score), 0));
        return row.map((score) => score - total);
      });
    });
  } finally {
    await session.dispose();
  }
}

describe("an encoder–decoder", () => {
  test("has of beam search the score that full passes give, and greedy takes the most probable tokens", async () => {
    const { baseModel } = await bart.loadAdapted();
    const generator = await generatorFor(baseModel);
    const prompts = fc.array(fc.integer({ min: 3, max: 87 }), { minLength: 1, maxLength: 10 });
    const settings = fc.record({
      numBeams: fc.integer({ min: 1, max: 4 }),
      lengthPenalty: fc.constantFrom(0, 1, 2, -1),
      earlyStopping: fc.constantFrom(true, false, "never" as const),
      maxNewTokens: fc.integer({ min: 2, max: 12 }),
      eosTokenIds: fc.constantFrom<number[]>([2], [2, 10, 20, 30, 40, 60, 70, 75]),
    });
    await withoutCache(baseModel, (logProbabilities) =>
      fc.assert(
        fc.asyncProperty(prompts, settings, async (words, options) => {
          const about = [0, ...words, 2];
          const { tokens, score } = await generator.generate(about, { ...options, forcedEosTokenId: [] });
          const rows = await logProbabilities(about, tokens);
          if (options.numBeams === 1) {
            for (const [i, row] of rows.entries()) expect(row[tokens[i]!]).toBeCloseTo(Math.max(...row), 4);
            return;
          }
          const total = rows.reduce((sum, row, i) => sum + row[tokens[i]!]!, 0);
          const expected = total / tokens.length ** options.lengthPenalty;
          expect(Math.abs(score! - expected)).toBeLessThan(1e-4 * Math.max(1, Math.abs(expected)));
        }),
        { numRuns: 25 },
      ),
    );
  });

  test("streams the tokens that it generates, with several beams too", async () => {
    const generator = await generatorFor(await bart.loadBase());
    for (const numBeams of [1, 3]) {
      const options = { numBeams, maxNewTokens: 8 };
      const { tokens, reason } = await generator.generate(source, options);
      const pieces = [];
      for await (const piece of generator.stream(source, options)) pieces.push(piece);
      expect(pieces.map(({ token }) => token)).toEqual(tokens);
      expect(pieces.at(-1)!.reason).toBe(reason);
    }
  });

  test("draws with a seed, one text or several, and with beams", async () => {
    const generator = await generatorFor(await bart.loadBase());
    const options = { temperature: 1.5, topK: 0, maxNewTokens: 6, seed: 3 };
    const { tokens, sequences } = await generator.generate(source, { ...options, numReturnSequences: 3 });
    expect(sequences).toHaveLength(3);
    expect(sequences[0]!.tokens).toEqual(tokens);
    expect(new Set(sequences.map((sequence) => sequence.tokens.join())).size).toBe(3);
    // The second text has the next seed.
    for (const [i, sequence] of sequences.entries())
      expect((await generator.generate(source, { ...options, seed: 3 + i })).tokens).toEqual(sequence.tokens);
    const beams = { ...options, numBeams: 2 };
    expect(await generator.generate(source, beams)).toEqual(await generator.generate(source, beams));
    expect(
      await generator.generateBatch([source, source], { ...options, numReturnSequences: 2 }),
    ).toHaveLength(4);
  });

  test("writes as many tokens as its decoder has places for, and no more", async () => {
    const model = await bart.loadBase();
    const generator = await generatorFor(model);
    expect(model.maxPositions).toBe(24);
    for (const numBeams of [1, 2]) {
      const options: GenerationOptions = {
        numBeams,
        maxNewTokens: 1000,
        eosTokenIds: [],
        forcedEosTokenId: [],
      };
      const { tokens, reason } = await generator.generate(source, options);
      expect(tokens).toHaveLength(24);
      expect(reason).toBe("length");
      // A forced end comes at the place where there are no more.
      const forced = await generator.generate(source, { ...options, forcedEosTokenId: 7 });
      expect(forced.tokens).toHaveLength(24);
      expect(forced.tokens.at(-1)).toBe(7);
    }
  });

  test("refuses prompts that its encoder has no places for, pictures, and what is asked for twice over", async () => {
    const generator = await generatorFor(await bart.loadBase());
    const long = await rejection(generator.generate(Array<number>(25).fill(5)));
    expect(long).toMatchObject({ code: "prompt-too-long" });
    expect(long.message).toBe(
      "The prompt has 25 tokens, and the model's encoder has positions for 24 (max_position_embeddings). Shorten the prompt.",
    );
    const pixelValues = tensor("float32", [3, 1, 1], new Float32Array(3));
    expect(await rejection(generator.generate({ prompt: source, pixelValues }))).toMatchObject({
      code: "no-pictures",
    });
    const several = await rejection(generator.generate(source, { numReturnSequences: 2 }));
    expect(several.message).toContain("numReturnSequences 2 needs beams or random draws");
    const many = await rejection(generator.generate(source, { numBeams: 2, numReturnSequences: 3 }));
    expect(many.message).toContain("numReturnSequences 3 is more than numBeams 2");
    const stream = generator.stream(source, { numBeams: 2, numReturnSequences: 2 });
    expect((await rejection(stream.next())).message).toContain("A stream is of one text");
    const forced = await rejection(generator.generate(source, { forcedBosTokenId: 88 }));
    expect(forced).toMatchObject({ code: "token-out-of-vocabulary" });
  });

  test("frees its caches, at the end, when a loop is left and when it fails", async () => {
    const { engine: counting, alive, largest } = countingEngine(engine());
    const model = await bart.loadBase();
    const generator = await generatorFor(model, { engine: counting });
    const options = { maxNewTokens: 6, numBeams: 3, eosTokenIds: [] };
    await generator.generate(source, options);
    await generator.generateBatch([source, source.slice(3)], options);
    expect(alive.size).toBe(0);
    // Those of the source once, those of the text as they are read and as they are written.
    const caches = 2 * model.decoderCacheLayout.layers;
    expect(largest()).toBe(3 * caches);
    for await (const _ of generator.stream(source, { ...options, numBeams: 1 })) {
      expect(alive.size).toBe(2 * caches);
      break;
    }
    expect(alive.size).toBe(0);
    await rejection(generator.generate(source, { ...options, forcedBosTokenId: 88 }));
    expect(alive.size).toBe(0);
    const signal = AbortSignal.abort(new Error("already"));
    await expect(generator.generate(source, options, { signal })).rejects.toThrow("already");
    expect(alive.size).toBe(0);
  });

  test("writes text, keeping the end token of the prompt", async () => {
    const codec: TextCodec = {
      addsEos: true,
      encode: (text) => [0, ...text.split(" ").map(Number), 2],
      decode: (ids) => ids.map((id) => `${id} `).join(""),
    };
    const generator = await generatorFor(await bart.loadBase(), { tokenizer: codec });
    const options = { maxNewTokens: 6 };
    const { text, tokens } = await generator.generate("5 49 24", options);
    expect(tokens).toEqual((await generator.generate([0, 5, 49, 24, 2], options)).tokens);
    expect(text).toBe(tokens.map((id) => `${id} `).join(""));
  });
});

describe("beams of a causal model", () => {
  const reference = new ReferenceCase(fileURLToPath(new URL("../vectors/models/llama-qv", import.meta.url)));

  test("begin from one reading of the prompt", async () => {
    const { engine: counting, alive, largest } = countingEngine(engine());
    const model = await reference.loadBase();
    const generator = await generatorFor(model, { engine: counting });
    const { prompt } = reference.expected.generation;
    const options = { maxNewTokens: 5, numBeams: 3, eosTokenIds: [] };
    const [a, b] = await generator.generateBatch([prompt, prompt.slice(2)], options);
    expect((await generator.generate(prompt, options)).tokens).toEqual(a);
    expect((await generator.generate(prompt.slice(2), options)).tokens).toEqual(b);
    expect(alive.size).toBe(0);
    expect(largest()).toBe(4 * model.cacheLayout.layers);
  });
});

describe("a model that reads pictures", () => {
  const directory = answeringModel();
  const load = async () => {
    const model = await AutoModelForImageTextToText.fromPretrained(directory);
    const processor = await Florence2Processor.fromPretrained(directory);
    return { model, processor, generator: await generatorFor(model, { processor }) };
  };
  const optionsOf = (settings: Record<string, number>): GenerationOptions => ({
    maxNewTokens: settings["max_new_tokens"]!,
    noRepeatNgramSize: settings["no_repeat_ngram_size"]!,
    ...(settings["num_beams"] !== undefined && { numBeams: settings["num_beams"] }),
  });

  test.each(
    recordedAnswers().map(
      (answer) => [`${answer.prompt} ${JSON.stringify(answer.settings)}`, answer] as const,
    ),
  )("answers %s as the reference", async (_, answer) => {
    const { generator } = await load();
    const prompt = { prompt: answer.prompt, image: pictureFile(answer.image) };
    const result = await generator.generate(prompt, optionsOf(answer.settings));
    expect(result.tokens).toEqual(answer.tokens);
    expect(result.text).toBe(shownText(answer));
    expect(result.parsed ?? null).toEqual(answer.parsed);
    expect(result.image).toEqual({ width: answer.size[0], height: answer.size[1] });
  });

  test("takes the settings of an older config.json", async () => {
    const { generator } = await load();
    expect(generator.settings().config).toMatchObject({
      numBeams: 2,
      earlyStopping: true,
      forcedBosTokenId: 0,
      forcedEosTokenIds: [2],
      decoderStartTokenId: 2,
      eosTokenIds: [2],
    });
  });

  test("takes prepared pixels, and several prompts at once, each with its picture", async () => {
    const { generator, processor } = await load();
    const answers = recordedAnswers().slice(2, 6);
    const options = { maxNewTokens: 10, numBeams: 2 };
    const prompts = answers.map(({ prompt, image }) => ({ prompt, image: pictureFile(image) }));
    const batch = await generator.generateBatch(prompts, options);
    for (const [i, prompt] of prompts.entries())
      expect((await generator.generate(prompt, options)).tokens).toEqual(batch[i]);
    const { pixelValues } = await processor.process({ text: prompts[0]!.prompt, images: prompts[0]!.image });
    const { tokens, parsed } = await generator.generate(
      { prompt: answers[0]!.inputIds, pixelValues },
      options,
    );
    expect(tokens).toEqual(batch[0]);
    expect(parsed).toBeUndefined();
  });

  test("says what is missing or does not fit", async () => {
    const { generator, model } = await load();
    const image = pictureFile("rgb.png");
    expect(await rejection(generator.generate("<OD>"))).toMatchObject({ code: "no-image" });
    expect(await rejection(generator.generate({ prompt: "<OD>cars", image }))).toMatchObject({
      code: "bad-prompt",
    });
    expect(await rejection(generator.generate({ prompt: "<OD>", image: "nowhere.png" }))).toMatchObject({
      code: "unreadable",
    });
    const [answer] = recordedAnswers();
    expect(await rejection(generator.generate(answer!.inputIds))).toMatchObject({ code: "image-tokens" });
    const bare = await generatorFor(model);
    expect(await rejection(bare.generate({ prompt: answer!.inputIds, image }))).toMatchObject({
      code: "no-processor",
    });
    const pixelValues = tensor("float32", [2, 16, 24], new Float32Array(2 * 16 * 24));
    const error = await rejection(bare.generate({ prompt: answer!.inputIds, pixelValues }));
    expect(error).toMatchObject({ code: "bad-pixels" });
    expect(error.message).toContain("[3, height, width]");
    // Without a picture and its placeholders it is a model of text.
    expect((await bare.generate([0, 5, 2], { maxNewTokens: 3 })).tokens).toHaveLength(3);
  });

  test("reads pictures of different sizes in one batch", async () => {
    const [reference] = florence2Cases().filter(({ expected }) => expected.name === "florence2-four-stages");
    const model = await reference!.loadBase();
    const generator = await generatorFor(model);
    const [picture] = await linePictures(reference!.directory);
    const size = { height: 70, width: 40 };
    const other = tensor(
      "float32",
      [3, size.height, size.width],
      Float32Array.from({ length: 3 * size.height * size.width }, (_, i) => Math.sin(i)),
    );
    const placeholders = (count: number) => Array<number>(count).fill(model.imageTokenId);
    const [, height, width] = picture!.shape as [number, number, number];
    const prompts = [
      { prompt: [...placeholders(model.imageTokens({ height, width })), 0, 9, 2], pixelValues: picture },
      { prompt: [...placeholders(model.imageTokens(size)), 0, 11, 5, 2], pixelValues: other },
      [0, 7, 7, 2],
    ];
    const options = { maxNewTokens: 6, numBeams: 2 };
    const batch = await generator.generateBatch(prompts, options);
    for (const [i, prompt] of prompts.entries())
      expect((await generator.generate(prompt, options)).tokens).toEqual(batch[i]);
  });
});
