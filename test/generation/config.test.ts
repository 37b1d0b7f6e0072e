import { describe, expect, it } from "vitest";
import {
  checkGenerationOptions,
  createLogitsProcessors,
  type GenerationOptions,
  generationOptionsSchema,
  newTokenLimit,
  resolveGenerationConfig,
  settingsFile,
} from "../../src/generation/index.ts";
import type { ModelOrigin } from "../../src/models/index.ts";
import { inputScores, outcomeBits, toBits, vectors } from "./vectors.ts";

const resolve = (options: GenerationOptions, file: object = {}) => resolveGenerationConfig(options, { file });

describe("createLogitsProcessors", () => {
  it.each(vectors.chains)("makes of $file what transformers makes", (recorded) => {
    const { config } = resolve({}, recorded.file);
    const processors = createLogitsProcessors(config, recorded);
    expect(processors.map((processor) => processor.constructor.name)).toEqual(recorded.names);
    const scores = inputScores(recorded.input);
    for (const processor of processors) processor.process(recorded.ids, scores);
    expect(toBits(scores)).toEqual(outcomeBits(recorded, inputScores(recorded.input)));
  });
});

describe("resolveGenerationConfig", () => {
  it("takes the most probable token by default, up to 256 times", () => {
    expect(resolve({})).toEqual({
      config: {
        maxNewTokens: 256,
        minNewTokens: 0,
        minLength: 0,
        doSample: false,
        temperature: 0,
        topK: 0,
        topP: 1,
        minP: 0,
        repetitionPenalty: 1,
        noRepeatNgramSize: 0,
        numBeams: 1,
        lengthPenalty: 1,
        earlyStopping: false,
        numReturnSequences: 1,
        forcedEosTokenIds: [],
        stop: [],
        eosTokenIds: [],
      },
      warnings: [],
    });
  });

  const sampling = { do_sample: true, temperature: 0.6, top_p: 0.9, eos_token_id: [128001, 128009] };
  it.each([
    [{}, sampling, { doSample: true, temperature: 0.6, topK: 50, topP: 0.9, eosTokenIds: [128001, 128009] }],
    [{ temperature: 0.2 }, sampling, { doSample: true, temperature: 0.2, topP: 0.9 }],
    [{ temperature: 0 }, sampling, { doSample: false, temperature: 0, topK: 0, topP: 1 }],
    [{ doSample: false }, sampling, { doSample: false, temperature: 0 }],
    [{ topK: 5 }, {}, { doSample: true, temperature: 1, topK: 5 }],
    [{ minP: 0.1 }, { temperature: 0.5 }, { doSample: true, temperature: 0.5, minP: 0.1 }],
    [{ doSample: true }, {}, { doSample: true, temperature: 1, topK: 50 }],
    [{ doSample: true, topK: 0 }, { top_k: 7 }, { topK: 0 }],
    [{}, { temperature: 0.6 }, { doSample: false }],
    [{}, { do_sample: true, temperature: 0 }, { doSample: false }],
    [{}, { max_new_tokens: 80 }, { maxNewTokens: 80 }],
    [{ maxNewTokens: 5 }, { max_new_tokens: 80, max_length: 4096 }, { maxNewTokens: 5 }],
    [{ stop: "\n" }, { stop_strings: ["x"] }, { stop: ["\n"] }],
    [{}, { stop_strings: "x" }, { stop: ["x"] }],
    [{ eosTokenIds: [] }, { eos_token_id: 2 }, { eosTokenIds: [] }],
    [{ eosTokenIds: 3 }, { eos_token_id: 2 }, { eosTokenIds: [3] }],
    [{ seed: 7, repetitionPenalty: 1.1 }, { repetition_penalty: 1.3 }, { seed: 7, repetitionPenalty: 1.1 }],
    [
      {},
      { repetition_penalty: null, eos_token_id: null, pad_token_id: -1 },
      { repetitionPenalty: 1, eosTokenIds: [] },
    ],
    [{}, { pad_token_id: 0 }, { padTokenId: 0 }],
  ] satisfies [GenerationOptions, object, object][])("options %j, file %j", (options, file, expected) => {
    const { config, warnings } = resolve(options, file);
    expect(config).toMatchObject(expected);
    expect(warnings).toEqual([]);
  });

  it("falls back on the end tokens of the model's config.json", () => {
    expect(resolveGenerationConfig({}, { eosTokenIds: [2] }).config.eosTokenIds).toEqual([2]);
    expect(
      resolveGenerationConfig({}, { file: { eos_token_id: 7 }, eosTokenIds: [2] }).config.eosTokenIds,
    ).toEqual([7]);
  });

  it("limits the whole length where the model's file does", () => {
    const { config } = resolve({}, { max_length: 20 });
    expect(config.maxNewTokens).toBeUndefined();
    expect(newTokenLimit(config, 15)).toBe(5);
    expect(() => newTokenLimit(config, 20)).toThrow(
      "The prompt has 20 tokens, and the model's generation_config.json limits prompt and output together to 20 (max_length).",
    );
    expect(newTokenLimit(resolve({ maxNewTokens: 8 }, { max_length: 20 }).config, 20)).toBe(8);
  });

  it("warns of settings of the file that would change the text", () => {
    const file = {
      num_beam_groups: 2,
      suppress_tokens: [1],
      bad_words_ids: [],
      guidance_scale: 1,
      typical_p: 0.9,
      forced_eos_token_id: null,
      length_penalty: 2,
    };
    expect(resolveGenerationConfig({}, { file, name: "m/generation_config.json" }).warnings).toEqual([
      {
        code: "unsupported-generation-setting",
        message:
          "m/generation_config.json sets num_beam_groups 2, suppress_tokens [1], which Graft does not support: transformers would generate other text.",
        details: { file: "m/generation_config.json", settings: { num_beam_groups: 2, suppress_tokens: [1] } },
      },
    ]);
    expect(resolve({ temperature: 1 }, { typical_p: 0.9 }).warnings[0]!.details["settings"]).toEqual({
      typical_p: 0.9,
    });
  });

  it.each([
    [{ temperature: 0, topP: 0.9 }, ["topP"]],
    [{ doSample: false, temperature: 0.5, topK: 3 }, ["topK", "temperature"]],
  ] satisfies [GenerationOptions, string[]][])("warns that %j has no effect in part", (options, unused) => {
    expect(resolve(options).warnings).toMatchObject([
      { code: "sampling-options-unused", details: { options: unused } },
    ]);
  });

  it("lists everything that is wrong with options", () => {
    const options = {
      temperature: -1,
      topP: 0,
      stop: ["a", ""],
      maxTokens: 5,
      top_k: 3,
      num_beam_groups: 4,
      penaltyAlpha: 0.5,
      repetitionPenalti: 1,
    } as GenerationOptions;
    expect(() => resolve(options)).toThrow(
      "Generation options: temperature must be a finite number of at least 0, got -1; topP must be greater than 0 and at most 1, got 0; " +
        'stop must be a text or a list of texts, none empty, got ["a",""]; there is no option maxTokens; use maxNewTokens; ' +
        "there is no option top_k; use topK; num_beam_groups is not supported; penaltyAlpha is not supported; " +
        "there is no option repetitionPenalti; use repetitionPenalty.",
    );
    expect(() => resolve({ doSample: true, temperature: 0 })).toThrow(
      "doSample true contradicts temperature 0",
    );
  });

  it("names the file whose settings are wrong", () => {
    expect(() =>
      resolveGenerationConfig({}, { file: { temperature: "hot", top_k: -1 }, name: "g.json" }),
    ).toThrow(
      'g.json: temperature must be a finite number of at least 0, got "hot"; top_k must be a whole number of at least 0, got -1. ' +
        "Correct the file, or remove it to use defaults.",
    );
    expect(() => resolveGenerationConfig({}, { file: [], name: "g.json" })).toThrow(
      "g.json: it is not a JSON object.",
    );
  });

  it.each([
    [
      {},
      {
        num_beams: 3,
        early_stopping: true,
        length_penalty: 2,
        no_repeat_ngram_size: 3,
        num_return_sequences: 2,
      },
      { numBeams: 3, earlyStopping: true, lengthPenalty: 2, noRepeatNgramSize: 3, numReturnSequences: 2 },
    ],
    [
      { numBeams: 2, earlyStopping: "never", lengthPenalty: -1, numReturnSequences: 1 },
      { num_beams: 3, early_stopping: true, length_penalty: 2, num_return_sequences: 2 },
      { numBeams: 2, earlyStopping: "never", lengthPenalty: -1, numReturnSequences: 1 },
    ],
    [
      {},
      { forced_bos_token_id: 0, forced_eos_token_id: 2, decoder_start_token_id: 2, bos_token_id: 0 },
      { forcedBosTokenId: 0, forcedEosTokenIds: [2], decoderStartTokenId: 2 },
    ],
    [{ forcedEosTokenId: [] }, { forced_eos_token_id: [2, 3] }, { forcedEosTokenIds: [] }],
    [{}, { bos_token_id: 5 }, { decoderStartTokenId: 5 }],
    [{}, { min_length: 7 }, { minLength: 7, minNewTokens: 0 }],
    [{ minNewTokens: 3 }, { min_length: 7 }, { minLength: 0, minNewTokens: 3 }],
    [{ doSample: true, numBeams: 2 }, {}, { doSample: true, numBeams: 2, topK: 50 }],
  ] satisfies [GenerationOptions, object, object][])(
    "of beams, options %j, file %j",
    (options, file, expected) => {
      const { config, warnings } = resolve(options, file);
      expect(config).toMatchObject(expected);
      expect(warnings).toEqual([]);
    },
  );

  it("warns of what has no effect without beams", () => {
    expect(resolve({ lengthPenalty: 2, earlyStopping: false }).warnings).toEqual([
      {
        code: "beam-options-unused",
        message: "lengthPenalty, earlyStopping have no effect without beam search. Set numBeams above 1.",
        details: { options: ["lengthPenalty", "earlyStopping"] },
      },
    ]);
  });

  it("refuses more texts of a prompt than there can be", () => {
    expect(() => resolve({ numReturnSequences: 2 })).toThrow(
      "numReturnSequences 2 needs beams or random draws, for the most probable text is one; set numBeams, or a temperature.",
    );
    expect(() => resolve({ numReturnSequences: 3, numBeams: 2 })).toThrow(
      "numReturnSequences 3 is more than numBeams 2; raise numBeams.",
    );
    expect(resolve({ numReturnSequences: 3, temperature: 1 }).config.numReturnSequences).toBe(3);
    // What is wrong with options alone is known before the model is.
    expect(checkGenerationOptions({ numReturnSequences: 2 })).toEqual({ numReturnSequences: 2 });
    expect(() => checkGenerationOptions({ numBeams: 0, earlyStopping: "soon" } as object)).toThrow(
      'numBeams must be a whole number of at least 1, got 0; earlyStopping must be true, false or "never", got "soon".',
    );
    expect(() => resolve({ minLength: 3, beamSize: 2 } as object)).toThrow(
      "there is no option minLength; use minNewTokens; there is no option beamSize; use numBeams",
    );
  });

  it("cuts the limit at what the model can write", () => {
    expect(newTokenLimit({ maxNewTokens: 100 }, 1, 24)).toBe(24);
    expect(newTokenLimit({ maxLength: 100 }, 1, 24)).toBe(24);
    expect(newTokenLimit({ maxLength: 10 }, 1, 24)).toBe(9);
  });

  it("documents every option", () => {
    for (const [name, field] of Object.entries(generationOptionsSchema.shape))
      expect(field.description, name).toMatch(/^[A-Z].+\.$/);
  });
});

describe("settingsFile", () => {
  const origin = (config: object, generationConfig?: object) =>
    ({ name: "m", config, generationConfig }) as unknown as ModelOrigin;

  it("is generation_config.json where there is one, whatever config.json says", () => {
    expect(settingsFile(origin({ num_beams: 4 }, { top_k: 3 }))).toEqual({
      file: { top_k: 3 },
      name: "m/generation_config.json",
    });
  });

  it("is else what config.json has, and its decoder's part where it has none", () => {
    const config = {
      model_type: "florence2",
      vocab_size: 40,
      num_beams: 4,
      max_length: null,
      text_config: {
        num_beams: 2,
        max_length: 30,
        forced_bos_token_id: 0,
        d_model: 16,
        suppress_tokens: [3],
      },
    };
    expect(settingsFile(origin(config))).toEqual({
      file: { num_beams: 4, max_length: 30, forced_bos_token_id: 0, suppress_tokens: [3] },
      name: "m/config.json",
    });
    expect(settingsFile(origin({ model_type: "llama" })).file).toEqual({});
  });
});
