import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { blobStore } from "../../src/checkpoint/blob-store.ts";
import { openStore, readCheckpoint, serializeSafetensors } from "../../src/checkpoint/index.ts";
import { UnsupportedModelError } from "../../src/errors.ts";
import {
  AutoModelForImageTextToText,
  buildImageTextToText,
  nativeFlorence2Config,
  nativeFlorence2Name,
  olderFlorence2Name,
} from "../../src/models/index.ts";
import { zeros } from "../../src/tensor/index.ts";
import { maxAbsDifference } from "../support/close.ts";
import { evaluate, sharedEngine } from "../support/run-graph.ts";
import { florence2Cases } from "./florence2-case.ts";
import { florence2Forward } from "./florence2-graphs.ts";

const engine = sharedEngine({ threads: 1 });
// Checkpoints that scripts/record_florence2.py also wrote in the layout of the remote code.
const both = florence2Cases().filter(({ expected }) =>
  ["florence2-four-stages", "florence2-several-pictures"].includes(expected.name),
);

type Json = Record<string, unknown>;
const jsonOf = (directory: string, file: string): Json =>
  JSON.parse(readFileSync(join(directory, file), "utf8")) as Json;

describe.each(both.map((reference) => [reference.expected.name, reference] as const))(
  "%s in the older layout",
  (_, reference) => {
    test("is the same model, with the same warnings and modules", async () => {
      const [native, older] = [await reference.loadBase(), await reference.loadBase("older")];
      expect(older.origin.warnings).toEqual([]);
      expect([...older.namedModules()].map(([path]) => path)).toEqual(
        [...native.namedModules()].map(([path]) => path),
      );
      expect(older.tiedWeights()).toEqual(native.tiedWeights());
      expect([...older.origin.checkpoint.tensors.keys()].sort()).toEqual(
        [...native.origin.checkpoint.tensors.keys()].sort(),
      );
    });

    test("carries the adapter and computes the recorded logits", async () => {
      const recorded = await reference.tensors();
      const batch = await reference.batch();
      const { baseModel } = await reference.loadAdapted("older");
      const { outputs, feeds } = await florence2Forward(baseModel, batch);
      const { logits } = await evaluate(engine(), { logits: outputs["logits"]! }, feeds);
      expect(maxAbsDifference(logits!.data as Float32Array, recorded.get("logits")!)).toBeLessThan(1e-4);
    });

    test("has the native configuration, but for what the older one leaves out", () => {
      const native = jsonOf(join(reference.directory, "model"), "config.json");
      const converted = nativeFlorence2Config(jsonOf(join(reference.directory, "older"), "config.json"), "c");
      for (const [name, value] of Object.entries(converted))
        if (name !== "text_config" && name !== "vision_config") expect(native[name], name).toEqual(value);
      for (const part of ["text_config", "vision_config"])
        for (const [name, value] of Object.entries(converted[part] as Json))
          expect((native[part] as Json)[name], `${part}.${name}`).toEqual(value);
      expect(converted["vision_config"]).toMatchObject({ embed_dim: expect.any(Array) as unknown });
    });

    test("names are turned into native ones and back", async () => {
      const names = [
        ...(await readCheckpoint(await openStore(join(reference.directory, "older")))).tensors.keys(),
      ].filter((name) => !name.includes("final_logits_bias"));
      const native = names.map(nativeFlorence2Name);
      expect(native).not.toContain(undefined);
      expect(native.map((name) => olderFlorence2Name(name!))).toEqual(names);
      expect(native.filter((name) => nativeFlorence2Name(name!) !== undefined)).toEqual([]);
    });
  },
);

test("modules and the parts of adapters are renamed as tensors are, other names are not", () => {
  expect(
    [
      "vision_tower.blocks.2.11.channel_block.channel_attn.fn.qkv",
      "vision_tower.blocks.0.0.spatial_block.conv1.fn.dw.lora_A.weight",
      "language_model.model.decoder.layers.3.encoder_attn.q_proj.lora_B.weight",
      "language_model.lm_head",
      "language_model.model",
    ].map(nativeFlorence2Name),
  ).toEqual([
    "model.vision_tower.blocks.2.11.channel_block.channel_attn.qkv",
    "model.vision_tower.blocks.0.0.spatial_block.conv1.lora_A.weight",
    "model.language_model.decoder.layers.3.encoder_attn.q_proj.lora_B.weight",
    "lm_head",
    "model.language_model",
  ]);
  expect(
    ["model.language_model.shared", "language_model.modelling", "lm_head", "image_projections"].map(
      nativeFlorence2Name,
    ),
  ).toEqual([undefined, undefined, undefined, undefined]);
  expect(["vision_tower.convs.0.proj", "language_model.lm_head", "lm_heads"].map(olderFlorence2Name)).toEqual(
    [undefined, undefined, undefined],
  );
});

describe("configurations of remote code", () => {
  // As microsoft/Florence-2-base is published, but for generation settings.
  const published: Json = {
    architectures: ["Florence2ForConditionalGeneration"],
    auto_map: { AutoConfig: "configuration_florence2.Florence2Config" },
    bos_token_id: 0,
    eos_token_id: 2,
    ignore_index: -100,
    model_type: "florence2",
    pad_token_id: 1,
    projection_dim: 768,
    text_config: {
      vocab_size: 51289,
      d_model: 768,
      activation_dropout: 0.1,
      attention_dropout: 0.1,
      decoder_attention_heads: 12,
      decoder_ffn_dim: 3072,
      decoder_layers: 6,
      encoder_attention_heads: 12,
      encoder_ffn_dim: 3072,
      encoder_layers: 6,
    },
    vision_config: {
      model_type: "davit",
      drop_path_rate: 0.1,
      patch_size: [7, 3, 3, 3],
      patch_stride: [4, 2, 2, 2],
      patch_padding: [3, 1, 1, 1],
      patch_prenorm: [false, true, true, true],
      enable_checkpoint: false,
      dim_embed: [128, 256, 512, 1024],
      num_heads: [4, 8, 16, 32],
      num_groups: [4, 8, 16, 32],
      depths: [1, 1, 9, 1],
      window_size: 12,
      projection_dim: 768,
      visual_temporal_embedding: { type: "COSINE", max_temporal_embeddings: 100 },
      image_pos_embed: { type: "learned_abs_2d", max_pos_embeddings: 50 },
      image_feature_source: ["spatial_avg_pool", "temporal_avg_pool"],
    },
    vocab_size: 51289,
    torch_dtype: "float16",
    is_encoder_decoder: true,
  };

  test("the published one becomes transformers', with the picture's token behind the vocabulary", () => {
    const before = structuredClone(published);
    expect(nativeFlorence2Config(published, "c")).toEqual({
      architectures: ["Florence2ForConditionalGeneration"],
      bos_token_id: 0,
      eos_token_id: 2,
      model_type: "florence2",
      pad_token_id: 1,
      image_token_id: 51289,
      text_config: { ...(published["text_config"] as Json), model_type: "bart" },
      vision_config: {
        model_type: "florence_vision",
        drop_path_rate: 0.1,
        patch_size: [7, 3, 3, 3],
        patch_stride: [4, 2, 2, 2],
        patch_padding: [3, 1, 1, 1],
        patch_prenorm: [false, true, true, true],
        embed_dim: [128, 256, 512, 1024],
        num_heads: [4, 8, 16, 32],
        num_groups: [4, 8, 16, 32],
        depths: [1, 1, 9, 1],
        window_size: 12,
        projection_dim: 768,
        max_temporal_embeddings: 100,
        max_position_embeddings: 50,
      },
      torch_dtype: "float16",
      is_encoder_decoder: true,
    });
    expect(published).toEqual(before);
  });

  test("a native one stays as it is, with what transformers' script leaves of the older one", () => {
    const vision = { ...(published["vision_config"] as Json), model_type: "florence_vision" };
    const native = {
      ...nativeFlorence2Config(published, "c"),
      vision_config: { ...vision, embed_dim: vision["dim_embed" as never], max_pos_embeddings: 50 },
    };
    expect(nativeFlorence2Config(native, "c")).toBe(native);
    expect(buildImageTextToText(native, "c").warnings).toEqual([]);
    expect(buildImageTextToText(published, "c").warnings).toEqual([]);
    const plain = { model_type: "florence2" };
    expect(nativeFlorence2Config(plain, "c")).toBe(plain);
  });

  test("the published one describes the modules of the native one", () => {
    const { model, config } = buildImageTextToText(published, "c");
    expect(config).toEqual(nativeFlorence2Config(published, "c"));
    expect(model.parameterCount()).toBe(231_414_016);
    expect([model.imageTokenId, model.vocabSize, model.eosTokenIds]).toEqual([51289, 51289, [2]]);
  });

  test.each<[string, Json, RegExp]>([
    [
      "other positions",
      { image_pos_embed: { type: "sine" } },
      /image_pos_embed\.type is "sine" \(only "learned_abs_2d"/,
    ],
    ["no time", { visual_temporal_embedding: undefined }, /visual_temporal_embedding\.type is missing/],
    [
      "other features",
      { image_feature_source: ["temporal_avg_pool"] },
      /image_feature_source is \["temporal_avg_pool"\]/,
    ],
    ["no depth-wise convolutions", { conv_at_ffn: false }, /conv_at_ffn is false/],
  ])("%s: refused", (_, changes, message) => {
    const vision = { ...(published["vision_config"] as Json), ...changes };
    let failure: unknown;
    try {
      nativeFlorence2Config({ ...published, vision_config: vision }, "m/config.json");
    } catch (error) {
      failure = error;
    }
    expect(failure).toBeInstanceOf(UnsupportedModelError);
    expect((failure as Error).message).toMatch(message);
    expect((failure as Error).message).toMatch(/^m\/config\.json: .*Convert it with/);
  });
});

test("an older checkpoint that lacks a tensor says so with the native name", async () => {
  const { directory } = both[0]!;
  const store = blobStore(
    new Map([
      ["config.json", new Blob([readFileSync(join(directory, "older", "config.json"))])],
      [
        "model.safetensors",
        new Blob([
          serializeSafetensors({ image_projection: zeros("float32", [16, 16]) }) as Uint8Array<ArrayBuffer>,
        ]),
      ],
    ]),
  );
  await expect(AutoModelForImageTextToText.fromPretrained(store)).rejects.toThrow(
    /tensor "model\.vision_tower\.convs\.0\.conv\.weight" is missing/,
  );
});
