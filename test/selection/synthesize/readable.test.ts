/** What people ask for, and how it is said. Every configuration is proved by the engine before it is returned. */
import { describe, expect, test } from "vitest";
import type { SelectionConfig } from "../../../src/selection/index.ts";
import { synthesize } from "../../../src/selection/synthesize/index.ts";
import { makeMoeTree } from "../peft/moe-tree.ts";
import { adaptableNames, skeleton } from "./support.ts";

const moe = makeMoeTree(4, 16);
const treeOf = (name: string) => (name === "moe" ? moe : skeleton(name));

type Row = [title: string, model: string, wanted: RegExp, count: number, expected: SelectionConfig];
const list = (targets: string, more: SelectionConfig = {}): SelectionConfig => ({
  targetModules: targets.split(" "),
  ...more,
});
const layers = (...layersToTransform: number[]): SelectionConfig => ({ layersToTransform });
const regex = (targetModules: string): SelectionConfig => ({ targetModules });

describe("modules", () => {
  test.each<Row>([
    ["query and value", "llama-3.2-1b", /[qv]_proj$/, 32, list("q_proj v_proj")],
    ["every linear layer", "llama-3.2-1b", /layers.*_proj$/, 112, regex("all-linear")],
    [
      "the last quarter",
      "llama-3.2-1b",
      /layers\.1[2-5]\..*[qv]_proj$/,
      8,
      list("q_proj v_proj", layers(12, 13, 14, 15)),
    ],
    ["one layer", "bert-base-seqcls", /layer\.11\./, 6, list("dense key query value", layers(11))],
    ["one module", "llama-3.2-1b", /layers\.3\.self_attn\.q_proj/, 1, list("q_proj", layers(3))],
    [
      "odd layers",
      "llama-3.2-1b",
      /layers\.\d*[13579]\..*q_proj$/,
      8,
      list("q_proj", layers(1, 3, 5, 7, 9, 11, 13, 15)),
    ],
    [
      "odd layers of one kind, the last ones of another",
      "llama-3.2-1b",
      /layers\.\d*[13579]\..*[qv]_proj$|layers\.1[0-5]\..*down_proj$/,
      22,
      regex(".*\\.layers\\.(\\d*[13579]\\..*\\.(q_proj|v_proj)|1[0-5]\\..*\\.down_proj)"),
    ],
    [
      "all but one",
      "llama-3.2-1b",
      /layers\.(?!3\.self_attn\.q).*[qv]_proj$/,
      31,
      list("q_proj v_proj", { excludeModules: ["layers.3.self_attn.q_proj"] }),
    ],
    [
      "last 2 encoder layers and all decoder layers (huggingface/peft#2165)",
      "florence2-base",
      /language_model\.(?:decoder|encoder\.layers\.[45])\..*[qv]_proj$/,
      28,
      regex(".*\\.(encoder\\.layers\\.[45]|decoder)\\..*\\.(q_proj|v_proj)"),
    ],
    [
      "two towers",
      "florence2-base",
      /blocks.*(?:qkv|\.proj|fc\d)$|language_model\.encoder\.layers/,
      132,
      regex(".*\\.(blocks\\..*\\.(fc1|fc2|proj|qkv)|encoder\\..*\\.(fc1|fc2|k_proj|out_proj|q_proj|v_proj))"),
    ],
    [
      "some blocks of one stage",
      "florence2-base",
      /blocks\.2\.[1-8]\..*(?:fc1|qkv)$/,
      32,
      regex(".*\\.blocks\\.2\\.[1-8]\\..*\\.(fc1|qkv)"),
    ],
    [
      "cross-attention",
      "bart-base",
      /encoder_attn\.[qv]_proj$/,
      12,
      list("encoder_attn.q_proj encoder_attn.v_proj"),
    ],
    [
      "cross-attention",
      "whisper-tiny",
      /encoder_attn\..*_proj$/,
      16,
      list("encoder_attn.k_proj encoder_attn.out_proj encoder_attn.q_proj encoder_attn.v_proj"),
    ],
    ["the decoder", "whisper-tiny", /decoder.*[qv]_proj$/, 16, regex(".*\\.decoder\\..*\\.(q_proj|v_proj)")],
    [
      "some layers of the decoder",
      "whisper-tiny",
      /decoder\.layers\.[23]\..*[qv]_proj$/,
      8,
      list("q_proj v_proj", { ...layers(2, 3), layersPattern: "decoder.layers" }),
    ],
    ["the vision tower", "qwen2-vl-2b", /visual.*(?:qkv|\.proj|fc\d)$/, 129, list("fc1 fc2 proj qkv")],
    [
      "the vision blocks, without the patches",
      "qwen2-vl-2b",
      /visual\.blocks.*(?:qkv|\.proj|fc\d)$/,
      128,
      list("attn.proj fc1 fc2 qkv"),
    ],
    ["one step of a Sequential", "qwen2-vl-2b", /merger\.mlp\.0$/, 1, list("mlp.0")],
    [
      "the last layers of one of two towers",
      "clip-vit-b32",
      /vision_model.*layers\.1[01]\..*[qv]_proj/,
      4,
      list("q_proj v_proj", { ...layers(10, 11), layersPattern: "vision_model.encoder.layers" }),
    ],
    ["the encoder", "t5-small", /encoder\..*\.[qv]$/, 12, regex("encoder\\..*\\.(q|v)")],
    ["the outer of nested lists", "t5-small", /block\.[345]\..*\.[qv]$/, 18, list("q v", layers(3, 4, 5))],
    [
      "the inner of nested lists",
      "t5-small",
      /decoder\.block\.\d\.layer\.2\./,
      12,
      list("layer.2.DenseReluDense.wi layer.2.DenseReluDense.wo"),
    ],
    ["stages", "resnet-50", /stages\.[23]\..*convolution$/, 29, list("convolution", layers(2, 3))],
    [
      "blocks of stages",
      "resnet-50",
      /stages\.[23]\.layers\.[0-2]\..*convolution$/,
      20,
      regex(".*\\.stages\\.[23]\\.layers\\.[0-2]\\..*\\.convolution"),
    ],
    ["a layer inside each block", "resnet-50", /layer\.1\.convolution$/, 16, list("layer.1.convolution")],
    [
      "attention and a classifier",
      "bert-base-seqcls",
      /query$|value$|^classifier$/,
      25,
      list("classifier query value"),
    ],
    [
      "the outputs without the pooler's",
      "bert-base-seqcls",
      /layer\..*dense$/,
      36,
      list("intermediate.dense output.dense"),
    ],
    [
      "attention everywhere, the last layer in full",
      "gpt2",
      /attn\.|h\.11\.mlp/,
      26,
      list("attn.c_proj c_attn h.11.mlp.c_fc h.11.mlp.c_proj"),
    ],
    [
      "layers and the head",
      "bart-base",
      /layers\.[3-5]\..*q_proj$|lm_head/,
      10,
      list("q_proj lm_head", layers(3, 4, 5)),
    ],
    [
      "some experts of one layer",
      "moe",
      /layers\.1\..*experts\.[0-9]\.(?:up|down)_proj$/,
      20,
      regex(".*\\.layers\\.1\\.mlp\\.experts\\.\\d\\.(down_proj|up_proj)"),
    ],
    [
      "some experts of each layer",
      "moe",
      /experts\.[0-3]\./,
      48,
      list("down_proj gate_proj up_proj", { ...layers(0, 1, 2, 3), layersPattern: "experts" }),
    ],
    ["the experts of some layers", "moe", /layers\.[23]\..*up_proj$/, 32, list("up_proj", layers(2, 3))],
    [
      "a type that takes no regex",
      "mixtral-8x7b",
      /layers\.\d*[02468]\..*[qv]_proj$|layers\.\d*[13579]\..*o_proj$/,
      48,
      list("o_proj q_proj v_proj", {
        excludeModules: ".*\\.layers\\.(\\d*[13579]\\..*\\.(q_proj|v_proj)|\\d*[02468]\\..*\\.o_proj)",
      }),
    ],
  ])("%s (%s)", (_, model, wanted, count, expected) => {
    const tree = treeOf(model);
    const names = adaptableNames(tree).filter((name) => wanted.test(name));
    expect(names.length).toBe(count);
    expect(synthesize(tree, names).config).toEqual(expected);
  });
});

describe("ranks and alphas", () => {
  type Ranked = [
    title: string,
    model: string,
    wanted: RegExp,
    ranks: [RegExp, number][],
    table: Record<string, number>,
  ];
  test.each<Ranked>([
    ["by leaf", "llama-3.2-1b", /[qv]_proj$/, [[/v_proj/, 4]], { v_proj: 4 }],
    ["by layer", "llama-3.2-1b", /_proj$/, [[/layers\.1[2-5]\./, 16]], { "layers\\.1[2-5]\\..*": 16 }],
    [
      "every other layer",
      "llama-3.2-1b",
      /_proj$/,
      [[/layers\.\d*[13579]\./, 16]],
      { "layers\\.\\d*[13579]\\..*": 16 },
    ],
    [
      "one module",
      "llama-3.2-1b",
      /[qv]_proj$/,
      [[/layers\.3\..*q_proj/, 64]],
      { "layers.3.self_attn.q_proj": 64 },
    ],
    ["by tower", "clip-vit-b32", /[qv]_proj$/, [[/vision_model/, 16]], { "vision_model\\..*": 16 }],
    [
      "by tower of those that a regex selects",
      "florence2-base",
      /language_model\.(?:decoder|encoder\.layers\.[45])\..*[qv]_proj$/,
      [[/encoder\.layers/, 16]],
      { "encoder\\..*": 16 },
    ],
    [
      "special ones before those that they are part of",
      "t5-small",
      /\.[qv]$/,
      [
        [/block\.[0-2]\./, 8],
        [/EncDec/, 2],
        [/block/, 4],
      ],
      { "block\\.[3-5]\\..*\\.EncDecAttention\\.(q|v)": 2, "block\\.[3-5]\\..*": 4 },
    ],
    ["by expert", "moe", /experts.*_proj$/, [[/experts\.[0-3]\./, 16]], { "experts\\.[0-3]\\..*": 16 }],
  ])("%s (%s)", (_, model, wanted, ranks, table) => {
    const tree = treeOf(model);
    const rankOf = (name: string): number => ranks.find(([names]) => names.test(name))?.[1] ?? 8;
    const names = adaptableNames(tree).filter((name) => wanted.test(name));
    const { config, selection } = synthesize(
      tree,
      new Map(names.map((name) => [name, { r: rankOf(name), alpha: 32 }])),
    );
    expect(Object.entries(config.rankPattern!)).toEqual(Object.entries(table));
    expect([config.r, config.loraAlpha, config.alphaPattern]).toEqual([8, 32, {}]);
    expect(selection.targets.map(({ name, r }) => [name, r])).toEqual(
      selection.targets.map(({ name }) => [name, rankOf(name)]),
    );
  });

  test("the most common pair is everybody's; rank and alpha have keys of their own", () => {
    const tree = treeOf("llama-3.2-1b");
    const values = new Map(
      adaptableNames(tree)
        .filter((name) => /[qkv]_proj$/.test(name))
        .map((name) => [
          name,
          name.endsWith("q_proj")
            ? { r: 64, alpha: 16 }
            : name.endsWith("k_proj")
              ? { r: 4, alpha: 1 }
              : { r: 4, alpha: 16 },
        ]),
    );
    expect(synthesize(tree, values).config).toEqual({
      ...list("k_proj q_proj v_proj"),
      r: 64,
      loraAlpha: 16,
      rankPattern: { k_proj: 4, v_proj: 4 },
      alphaPattern: { k_proj: 1 },
    });
  });
});
