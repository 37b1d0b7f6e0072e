import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { moduleTreeOf } from "../../src/adapters/index.ts";
import { UnsupportedModelError } from "../../src/errors.ts";
import { buildImageTextToText } from "../../src/models/index.ts";
import { parseSkeleton } from "../../src/selection/index.ts";
import { build, small, withText, withVision } from "./florence2-small.ts";

const base = {
  model_type: "florence2",
  text_config: {
    vocab_size: 51289,
    d_model: 768,
    encoder_layers: 6,
    decoder_layers: 6,
    encoder_attention_heads: 12,
    decoder_attention_heads: 12,
    encoder_ffn_dim: 3072,
    decoder_ffn_dim: 3072,
  },
  vision_config: { projection_dim: 768 },
  image_token_id: 51288,
};

describe("Florence-2's module tree", () => {
  const skeleton = parseSkeleton(
    JSON.parse(
      gunzipSync(
        readFileSync(new URL("../vectors/skeletons/florence2-base.json.gz", import.meta.url)),
      ).toString(),
    ),
  );
  const model = build(base);

  test("has the reference's modules: paths, classes, kinds, sizes, parameters, in its order", () => {
    expect(moduleTreeOf(model).modules).toEqual(skeleton.modules);
  });

  test("has the reference's ties, embeddings and parameter count", () => {
    const byPath = (a: readonly string[], b: readonly string[]): number => (a[0]! < b[0]! ? -1 : 1);
    // here a shared weight has the name of the first module that has it, which is the source there
    expect(model.tiedWeights().sort(byPath)).toEqual([...skeleton.tiedWeights].sort(byPath));
    const { tiedWeights, tiedWithEmbedding, seqClsHeads, duplicateModules } = moduleTreeOf(model);
    expect({ tiedWeights, tiedWithEmbedding, seqClsHeads, duplicateModules }).toEqual({
      tiedWeights: skeleton.tiedWeights,
      tiedWithEmbedding: skeleton.tiedWithEmbedding,
      seqClsHeads: skeleton.seqClsHeads,
      duplicateModules: skeleton.duplicateModules,
    });
    expect(model.inputEmbeddingPath).toBe(skeleton.inputEmbeddings);
    expect(model.outputEmbeddingPath).toBe(skeleton.outputEmbeddings);
    expect(model.parameterCount()).toBe(skeleton.numParameters);
  });

  test("of the large size it has the reference's number of modules and parameters", () => {
    const sizes = [256, 512, 1024, 2048];
    const heads = [8, 16, 32, 64];
    const large = build({
      model_type: "florence2",
      // as transformers' BartConfig has it, with more positions
      text_config: { vocab_size: 51289, max_position_embeddings: 4096 },
      vision_config: { embed_dim: sizes, num_heads: heads, num_groups: heads },
    });
    expect(large.parameterCount()).toBe(776_465_408);
    expect([...large.namedModules()]).toHaveLength(725);
  });

  test("has the reference's tensors", () => {
    const tensors = [...model.parameterPaths()].flatMap(([{ shape }, paths]) =>
      paths.map((path) => [path, [...shape]] as const),
    );
    const buffers = [...model.namedBuffers()].map(([path, { shape }]) => [path, [...shape]] as const);
    const reference = skeleton.stateDict!.map(([path, shape]) => [path, [...shape]] as const);
    expect(new Map([...tensors, ...buffers])).toEqual(new Map(reference));
  });

  test.each<[top: boolean | undefined, text: boolean | undefined, ties: string[]]>([
    [undefined, undefined, ["encoder", "decoder", "head"]],
    [undefined, false, ["head"]],
    [false, undefined, ["encoder", "decoder"]],
    [false, false, []],
  ])("tie_word_embeddings %s, in text_config %s: shares with %j", (top, text, ties) => {
    const tied = build({
      ...withText(text === undefined ? {} : { tie_word_embeddings: text }),
      ...(top === undefined ? {} : { tie_word_embeddings: top }),
    }).tiedWeights();
    const names: Record<string, string> = {
      encoder: "model.language_model.encoder.embed_tokens.weight",
      decoder: "model.language_model.decoder.embed_tokens.weight",
      head: "lm_head.weight",
    };
    expect(tied).toEqual(ties.map((tie) => [names[tie], "model.language_model.shared.weight"]));
  });
});

describe("what a config.json may not ask for", () => {
  const failure = (config: unknown): UnsupportedModelError => {
    try {
      buildImageTextToText(config, "m/config.json");
    } catch (error) {
      expect(error).toBeInstanceOf(UnsupportedModelError);
      return error as UnsupportedModelError;
    }
    throw new Error("the configuration was accepted");
  };

  test.each<[string, Record<string, unknown>, RegExp]>([
    ["another model type", { model_type: "florence" }, /Did you mean "florence2"\?/],
    [
      "another language model",
      withText({ model_type: "t5" }),
      /text_config\.model_type "t5" is not implemented/,
    ],
    [
      "text settings that do not fit",
      withText({ encoder_attention_heads: 5 }),
      /m\/config\.json, text_config: d_model 16 must be a multiple of the number of heads, 5/,
    ],
    [
      "a projection of another size",
      withVision({ projection_dim: 24 }),
      /vision_config\.projection_dim 24 must be text_config\.d_model, 16/,
    ],
    [
      "heads for fewer stages",
      withVision({ num_heads: [2], depths: [1] }),
      /num_heads has 1 entries for 2 stages \(embed_dim\); depths has 1 entries/,
    ],
    [
      "heads and groups that do not divide",
      withVision({ num_heads: [3, 3], num_groups: [4, 5] }),
      /embed_dim 8 must be a multiple of num_heads 3; embed_dim 12 must be a multiple of num_groups 5/,
    ],
    ["an odd size", withVision({ embed_dim: [8, 9], num_groups: [4, 3] }), /must end with an even number/],
    ["a window of 0", withVision({ window_size: 0 }), /window_size/],
    ["a rate of 1", withVision({ drop_path_rate: 1 }), /drop_path_rate/],
    [
      "an unknown activation",
      withVision({ activation_function: "gelo" }),
      /activation_function "gelo" is not implemented; closest: gelu/,
    ],
    ["a negative picture token", { ...small, image_token_id: -1 }, /image_token_id/],
    ["quantised weights", { ...small, quantization_config: {} }, /quantization_config/],
    [
      "remote code of another kind",
      { ...small, auto_map: { AutoConfig: "x.Y" }, vision_config: { model_type: "clip" } },
      /written for its own code, in a form that Graft does not know.*Convert it with/,
    ],
  ])("%s", (_, config, message) => {
    expect(failure(config).message).toMatch(message);
  });

  test("longer lists than there are stages are read as far as there are", () => {
    const long = withVision({ depths: [1, 2, 9, 1], patch_size: [7, 3, 3, 3] });
    expect(build(long).imageTokens({ height: 32, width: 64 })).toBe(1 + 4 * 8);
    expect(buildImageTextToText(long, "c").warnings).toEqual([]);
  });

  test("unknown fields are named in a warning, wherever they are", () => {
    const { warnings } = buildImageTextToText({ ...withVision({ mystery: 1 }), riddle: 2 }, "c");
    expect(warnings).toEqual([
      expect.stringMatching(/^c: .*riddle/),
      expect.stringMatching(/^c, vision_config: .*mystery/),
    ]);
  });
});

describe("sizes of pictures", () => {
  const model = build(withVision({ max_position_embeddings: 6 }));

  test("what is left of a picture, and one feature more", () => {
    expect(model.imageTokens({ height: 33, width: 20 })).toBe(1 + 5 * 3);
    expect(build(base).imageTokens({ height: 768, width: 768 })).toBe(577);
  });

  test("noise for dropped paths, feature maps, windows and the projector", () => {
    // 9 × 5 places in windows of 3 × 3, so 9 × 6; then 5 × 3, so 6 × 3; the projector's 1 + 15
    expect(model.imageNoiseRows({ height: 33, width: 20 })).toEqual([1, 45, 54, 15, 18, 16]);
  });

  test("one too small is refused", () => {
    const tiny = build(withVision({ patch_padding: [0, 0] }));
    expect(() => tiny.imageTokens({ height: 8, width: 64 })).toThrow(
      /too small: of 8 × 64 pixels nothing is left/,
    );
  });
});
