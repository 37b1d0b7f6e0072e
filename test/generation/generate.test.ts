import { fileURLToPath } from "node:url";
import { describe, expect, onTestFinished, test } from "vitest";
import { GraftError } from "../../src/errors.ts";
import { type GeneratedToken, type TextCodec, TextGenerator } from "../../src/generation/index.ts";
import { type CausalLM, causalInputs } from "../../src/models/index.ts";
import { tensor } from "../../src/tensor/index.ts";
import { type ReferenceCase, referenceCases } from "../support/reference-case.ts";
import { sharedEngine } from "../support/run-graph.ts";
import { countingEngine } from "./counting-engine.ts";

const cases = referenceCases(fileURLToPath(new URL("../vectors/models", import.meta.url)));
const named = (name: string): ReferenceCase => cases.find(({ expected }) => expected.name === name)!;
const sharedOne = sharedEngine({ threads: 1 });

const counting = () => countingEngine(sharedOne());

/** Spells token 5 as "<5>"; encodes the same way. Tokens from 90 on are special. */
const codec: TextCodec = {
  encode: (text) => [...text.matchAll(/<(\d+)>/g)].map(([, id]) => Number(id)),
  decode: (ids, { skipSpecialTokens = false } = {}) =>
    ids.map((id) => (skipSpecialTokens && id >= 90 ? "" : `<${id}>`)).join(""),
};
const spell = (ids: readonly number[]): string => codec.decode([...ids]);

async function generatorFor(
  model: CausalLM,
  { engine = sharedOne(), tokenizer = undefined as TextCodec | undefined } = {},
) {
  const generator = await TextGenerator.create(model, { engine, ...(tokenizer && { tokenizer }) });
  onTestFinished(() => generator.dispose());
  return generator;
}
const adaptedGenerator = async (reference: ReferenceCase, options: Parameters<typeof generatorFor>[1] = {}) =>
  generatorFor((await reference.loadAdapted()).baseModel, options);

async function rejection(promise: Promise<unknown>): Promise<GraftError> {
  const error: unknown = await promise.then(
    () => new Error("nothing failed"),
    (error: unknown) => error,
  );
  if (error instanceof GraftError) return error;
  throw error;
}

/** Computes the scores after a text without a cache. */
async function withoutCache<T>(
  model: CausalLM,
  use: (scores: (ids: readonly number[]) => Promise<Float32Array>) => Promise<T>,
): Promise<T> {
  const logits = model.logits(model.hiddenStates(causalInputs()).hidden);
  const session = await sharedOne().createSession({ logits });
  const parameters = await model.parameterFeeds();
  const result = await use(async (ids) => {
    const shape = [1, ids.length];
    const { outputs } = await session.run({
      ...parameters,
      ...model.positionFeeds(ids.length),
      input_ids: tensor("int64", shape, BigInt64Array.from(ids, BigInt)),
      attention_mask: tensor("float32", shape, new Float32Array(ids.length).fill(1)),
      position_ids: tensor("float32", shape, Float32Array.from(ids.keys())),
    });
    return (outputs["logits"]!.data as Float32Array).slice(-model.vocabSize);
  });
  await session.dispose();
  return result;
}

/** Greedy tokens for which the whole text is read again each time. */
const recomputed = (model: CausalLM, prompt: readonly number[], count: number): Promise<number[]> =>
  withoutCache(model, async (scores) => {
    const ids = [...prompt];
    while (ids.length < prompt.length + count) {
      const last = await scores(ids);
      ids.push(last.indexOf(Math.max(...last)));
    }
    return ids.slice(prompt.length);
  });

describe.each(cases.map((reference) => [reference.expected.name, reference] as const))(
  "%s",
  (name, reference) => {
    const { generation, generationBatch } = reference.expected;
    const { prompt, maxNewTokens } = generation;

    test("greedy tokens are transformers', with and without the adapter, with and without an end", async () => {
      const adapted = await adaptedGenerator(reference);
      // The end tokens come from the model's files.
      expect(adapted.settings().config.eosTokenIds).toEqual(generation.eosTokenIds);
      const { tokens, reason } = await adapted.generate(prompt, { maxNewTokens, doSample: false });
      expect(tokens).toEqual(generation.newTokens);
      expect(reason).toBe(generation.eosTokenIds.includes(tokens.at(-1)!) ? "eos" : "length");
      const endless = await adapted.generate(prompt, { maxNewTokens, doSample: false, eosTokenIds: [] });
      expect(endless).toMatchObject({ tokens: generation.newTokensWithoutEos, reason: "length" });
      const base = await generatorFor(await reference.loadBase());
      expect((await base.generate(prompt, { maxNewTokens, doSample: false })).tokens).toEqual(
        generation.newTokensBase,
      );
    });

    test.runIf(generationBatch)("a batch with padding on the left is transformers'", async () => {
      const { input_ids, attention_mask, newTokens, eosTokenIds, ...rest } = generationBatch!;
      const prompts = input_ids.map((row, i) => row.filter((_, column) => attention_mask[i]![column] === 1));
      expect(new Set(prompts.map(({ length }) => length)).size).toBeGreaterThan(1);
      const generator = await adaptedGenerator(reference);
      const options = { maxNewTokens: rest.maxNewTokens, doSample: false, eosTokenIds };
      expect(await generator.generateBatch(prompts, options)).toEqual(newTokens);
      // Each text is what it is alone.
      for (const [i, alone] of prompts.entries())
        expect((await generator.generate(alone, options)).tokens).toEqual(newTokens[i]);
    });

    // Dynamic RoPE rescales later tokens only: there, keys in the cache keep the frequencies of their time, as in transformers.
    test.skipIf(name.includes("dynamic"))(
      "the cache changes nothing (dynamic RoPE is meant to differ)",
      async () => {
        const { baseModel } = await reference.loadAdapted();
        expect(await recomputed(baseModel, prompt, maxNewTokens)).toEqual(generation.newTokensWithoutEos);
      },
    );
  },
);

describe("sampling", () => {
  const reference = named("llama-qv");
  const { prompt, newTokensWithoutEos } = reference.expected.generation;
  const options = { maxNewTokens: 12, eosTokenIds: [], temperature: 1.2, topK: 0 };

  test("repeats with its seed, and differs without", async () => {
    const generator = await adaptedGenerator(reference);
    const draw = async (seed?: number) =>
      (await generator.generate(prompt, { ...options, ...(seed !== undefined && { seed }) })).tokens;
    const first = await draw(1);
    expect(await draw(1)).toEqual(first);
    const others = [await draw(2), await draw(3), await draw(), await draw()];
    expect(new Set([first, ...others].map(String)).size).toBe(5);
    expect(first).not.toEqual(newTokensWithoutEos);
  });

  test("from one token is greedy, whatever the temperature", async () => {
    const generator = await adaptedGenerator(reference);
    const { tokens } = await generator.generate(prompt, { ...options, topK: 1, temperature: 3 });
    expect(tokens).toEqual(newTokensWithoutEos);
  });

  test("gives each text of a batch draws of its own, which repeat", async () => {
    const generator = await adaptedGenerator(reference);
    const draw = (seed: number) => generator.generateBatch([prompt, prompt], { ...options, seed });
    const [a, b] = await draw(1);
    expect(a).not.toEqual(b);
    expect(await draw(1)).toEqual([a, b]);
    expect((await generator.generate(prompt, { ...options, seed: 1 })).tokens).toEqual(a);
    expect((await draw(2))[0]).toEqual(b); // the second text has the next seed
  });

  test("draws as often as the model says", async () => {
    const generator = await adaptedGenerator(reference);
    const { baseModel } = await reference.loadAdapted();
    const scores = await withoutCache(baseModel, (after) => after(prompt));
    const [first, second] = scores.toSorted().reverse();
    const temperature = 2 * (first! - second!); // so that neither token is rare
    const draws = 400;
    let hits = 0;
    for (let seed = 0; seed < draws; seed++) {
      const options = { maxNewTokens: 1, eosTokenIds: [], temperature, topK: 2, seed };
      const { tokens } = await generator.generate(prompt, options);
      if (tokens[0] === scores.indexOf(first!)) hits++;
      else expect(tokens[0]).toBe(scores.indexOf(second!));
    }
    const p = 1 / (1 + Math.exp(-1 / 2));
    expect(Math.abs(hits / draws - p)).toBeLessThan(4 * Math.sqrt((p * (1 - p)) / draws));
  });
});

describe("a text", () => {
  const reference = named("llama-qv");
  const { prompt, newTokensWithoutEos: greedy } = reference.expected.generation;
  const options = { maxNewTokens: 12, doSample: false, eosTokenIds: [] as number[] };
  const withCodec = () => adaptedGenerator(reference, { tokenizer: codec });
  const spelled = (ids: readonly number[]) => codec.decode([...ids], { skipSpecialTokens: true });

  test("is encoded, streamed in pieces, and the pieces make the whole", async () => {
    const generator = await withCodec();
    const { text, tokens } = await generator.generate(spell(prompt), options);
    expect(tokens).toEqual(greedy);
    expect(text).toBe(spelled(greedy));
    const pieces: GeneratedToken[] = [];
    for await (const piece of generator.stream(spell(prompt), options)) pieces.push(piece);
    expect(pieces.map(({ token }) => token)).toEqual(greedy);
    expect(pieces.map((piece) => piece.text).join("")).toBe(text);
    expect(pieces.map(({ reason }) => reason)).toEqual([...Array<undefined>(11).fill(undefined), "length"]);
  });

  test("ends before a stop string, also one that spans tokens", async () => {
    const generator = await withCodec();
    const at = 4; // a place whose tokens are ordinary and have not been there before
    const stop = `${spell(greedy.slice(at, at + 1)).slice(2)}${spell(greedy.slice(at + 1, at + 2)).slice(0, 2)}`;
    const before = spelled(greedy).indexOf(stop);
    expect(before).toBeGreaterThan(0);
    const { text, tokens, reason } = await generator.generate(prompt, { ...options, stop: ["never", stop] });
    expect(reason).toBe("stop");
    expect(text).toBe(spelled(greedy).slice(0, before));
    expect(tokens).toEqual(greedy.slice(0, tokens.length));
    expect(tokens.length).toBeLessThan(greedy.length);
    const pieces: string[] = [];
    for await (const piece of generator.stream(prompt, { ...options, stop })) pieces.push(piece.text);
    expect(pieces.join("")).toBe(text);
    // In a batch too, and only the text that has it.
    const other = prompt.slice(1);
    const alone = (await generator.generate(other, options)).tokens;
    expect(await generator.generateBatch([prompt, other], { ...options, stop })).toEqual([
      tokens,
      (await generator.generate(other, { ...options, stop })).tokens,
    ]);
    expect(alone).not.toEqual(greedy);
  });

  test("may use every option of the configuration", async () => {
    const generator = await withCodec();
    const unrepeated = await generator.generate([5, 6, 5, 6, 5], { ...options, noRepeatNgramSize: 1 });
    expect(new Set([5, 6, ...unrepeated.tokens]).size).toBe(14);
    const eos = greedy[2]!;
    const early = await generator.generate(prompt, { ...options, eosTokenIds: [eos] });
    expect(early).toMatchObject({ reason: "eos", tokens: greedy.slice(0, greedy.indexOf(eos) + 1) });
    const late = await generator.generate(prompt, { ...options, eosTokenIds: [eos], minNewTokens: 9 });
    expect(late.tokens.slice(0, 8)).not.toContain(eos);
    expect(late.tokens.length).toBeGreaterThanOrEqual(9);
  });

  test("several at once with one model do not disturb one another", async () => {
    const generator = await withCodec();
    const prompts = [prompt, prompt.slice(2), [7, 8, 9]];
    const alone = [];
    for (const each of prompts) alone.push((await generator.generate(each, options)).tokens);
    const together = await Promise.all(prompts.map((each) => generator.generate(each, options)));
    expect(together.map(({ tokens }) => tokens)).toEqual(alone);
  });
});

describe("the cache", () => {
  const reference = named("llama-qv");
  const { prompt } = reference.expected.generation;
  const options = { maxNewTokens: 6, doSample: false, eosTokenIds: [] };

  test("is freed at the end, step by step", async () => {
    const { engine, alive, largest } = counting();
    const generator = await adaptedGenerator(reference, { engine });
    await generator.generate(prompt, options);
    await generator.generateBatch([prompt, prompt.slice(3)], options);
    expect(alive.size).toBe(0);
    const { layers } = (await reference.loadBase()).cacheLayout;
    const { size: uploaded } = (await reference.loadAdapted()).trainableParameters();
    expect(largest()).toBe(uploaded + 4 * layers); // while it grows, the old cache and the new one
  });

  test.each(["llama-qv", "mistral-sliding-window", "qwen2-layer-types"])(
    "of %s changes nothing in texts for which it grows several times, padded or not",
    async (name) => {
      const model = await named(name).loadBase();
      const long = { ...options, maxNewTokens: 150 };
      const expected = await recomputed(model, prompt, long.maxNewTokens);
      const generator = await generatorFor(model);
      expect((await generator.generate(prompt, long)).tokens).toEqual(expected);
      const [padded] = await generator.generateBatch([prompt, [...prompt, ...prompt, 7]], long);
      expect(padded).toEqual(expected);
    },
  );

  test("holds the adapter's weights as they are when a text begins", async () => {
    const { baseModel } = await reference.loadAdapted();
    const generator = await generatorFor(baseModel);
    const before = (await generator.generate(prompt, options)).tokens;
    const feeds = await baseModel.parameterFeeds();
    for (const { data } of Object.values(feeds)) (data as Float32Array).fill(0);
    const after = (await generator.generate(prompt, options)).tokens;
    expect(after).toEqual(await recomputed(await reference.loadBase(), prompt, options.maxNewTokens));
    expect(after).not.toEqual(before);
  });

  test("is freed when a loop is left, and when generation is aborted or fails", async () => {
    const { engine, alive } = counting();
    const generator = await adaptedGenerator(reference, { engine });
    for await (const { token } of generator.stream(prompt, options)) {
      expect(token).toBeGreaterThanOrEqual(0);
      expect(alive.size).toBeGreaterThan(0);
      break;
    }
    expect(alive.size).toBe(0);

    const controller = new AbortController();
    const tokens: number[] = [];
    const aborted = (async () => {
      for await (const { token } of generator.stream(prompt, options, { signal: controller.signal })) {
        tokens.push(token);
        if (tokens.length === 3) controller.abort(new Error("enough"));
      }
    })();
    await expect(aborted).rejects.toThrow("enough");
    expect(tokens).toHaveLength(3);
    expect(alive.size).toBe(0);

    const signal = AbortSignal.abort(new Error("already"));
    await expect(generator.generate(prompt, options, { signal })).rejects.toThrow("already");
    await expect(generator.generateBatch([prompt], options, { signal })).rejects.toThrow("already");
    expect(alive.size).toBe(0);

    // A diverged adapter makes scores that mean nothing.
    const { baseModel } = await reference.loadAdapted();
    for (const [, parameter] of baseModel.namedParameters())
      if (parameter.data) parameter.data.data.fill(Number.NaN);
    const broken = await generatorFor(baseModel, { engine });
    expect((await rejection(broken.generate(prompt, options))).code).toBe("nonfinite-logits");
    expect((await rejection(broken.generateBatch([prompt], options))).code).toBe("nonfinite-logits");
    expect(alive.size).toBe(0);
  });

  test("trained weights are seen by the next text", async () => {
    const { baseModel } = await reference.loadAdapted();
    const generator = await generatorFor(baseModel);
    const before = (await generator.generate(prompt, options)).tokens;
    for (const [, { data }] of baseModel.namedParameters()) data?.data.fill(0);
    const after = (await generator.generate(prompt, options)).tokens;
    expect(after).toEqual(reference.expected.generation.newTokensBase.slice(0, 6));
    expect(after).not.toEqual(before);
  });
});

describe("what cannot be continued", () => {
  const reference = named("llama-qv");
  const generator = () => adaptedGenerator(reference);

  test("an empty prompt, tokens that the model does not have", async () => {
    const it = await generator();
    expect(await rejection(it.generate([]))).toMatchObject({ code: "empty-prompt" });
    expect(await rejection(it.generateBatch([[5], []]))).toMatchObject({ code: "empty-prompt" });
    for (const token of [96, -1, 1.5, Number.NaN]) {
      const error = await rejection(it.generate([5, token]));
      expect(error).toMatchObject({ code: "token-out-of-vocabulary", details: { place: 1, vocabSize: 96 } });
      expect(error.message).toBe(
        `Token ${token} at place 1 of the prompt is not in the vocabulary of 96. Does the tokenizer belong to the model?`,
      );
    }
  });

  test("text or stop strings without a tokenizer", async () => {
    const it = await generator();
    expect(await rejection(it.generate("hello"))).toMatchObject({ code: "no-tokenizer" });
    const error = await rejection(it.generate([5], { stop: ["a", "b"] }));
    expect(error).toMatchObject({ code: "no-tokenizer" });
    expect(error.message).toBe(
      'Stopping at a text ("a", "b") needs a tokenizer. Pass one, or leave stop out.',
    );
    expect((await rejection(it.generateBatch([[5]], { stop: "a" }))).code).toBe("no-tokenizer");
  });

  test("wrong options are all named", async () => {
    const error = await rejection((await generator()).generate([5], { topP: 2, maxTokens: 3 } as object));
    expect(error.code).toBe("invalid-generation-config");
    expect(error.message).toMatch(/topP must be.*use maxNewTokens/);
  });

  test("no prompts make no texts", async () => {
    expect(await (await generator()).generateBatch([])).toEqual([]);
  });
});

test("a generator without an engine makes one and disposes of it", async () => {
  const reference = named("llama-qv");
  const { prompt, newTokens } = reference.expected.generation;
  const generator = await TextGenerator.create((await reference.loadAdapted()).baseModel);
  const options = { maxNewTokens: 12, doSample: false };
  expect((await generator.generate(prompt, options)).tokens).toEqual(newTokens);
  await generator.dispose();
  await expect(generator.generate(prompt, options)).rejects.toThrow();
});
