import { describe, expect, test } from "vitest";
import { selectTargets } from "../../../src/selection/index.ts";
import { inferTree, type TensorInfo } from "../../../src/selection/infer/index.ts";

const t = (name: string, shape: number[], dtype = "float32"): TensorInfo => ({ name, shape, dtype });
const linear = (name: string, out: number, inputs: number) => [
  t(`${name}.weight`, [out, inputs]),
  t(`${name}.bias`, [out]),
];
const infer = (tensors: TensorInfo[], config?: unknown) => {
  const { tree, warnings } = inferTree(tensors, config);
  const of = (name: string) => tree.modules.find((module) => module.name === name);
  return {
    tree,
    of,
    names: tree.modules.map(({ name }) => name),
    codes: warnings.map(({ code }) => code),
    warnings,
  };
};

describe("kinds", () => {
  test("by shape and name", () => {
    const { of, codes } = infer([
      ...linear("net.0", 8, 4),
      t("net.2.weight", [3, 8]),
      t("tok.wte.weight", [100, 8]),
      t("tok.embed_positions.weight", [16, 8]),
      t("tok.embed_out.weight", [100, 8]),
      t("norm.weight", [8]),
      ...[t("bn.weight", [8]), t("bn.bias", [8]), t("bn.running_mean", [8]), t("bn.running_var", [8])],
      t("bn.num_batches_tracked", [], "int64"),
      t("conv.weight", [8, 3, 5, 5]),
      t("conv3.weight", [8, 3, 2, 5, 5]),
      t("mixer.conv1d.weight", [8, 1, 4]),
      t("attn.in_proj_weight", [24, 8]),
      t("attn.in_proj_bias", [24]),
      ...linear("attn.out_proj", 8, 8),
      t("vision.class_embedding", [8]),
      t("vision.position_ids", [1, 50], "int64"),
    ]);
    expect(of("net")).toMatchObject({ kind: "modulelist", parameters: [] });
    expect(of("net.0")).toMatchObject({ kind: "linear", in: 4, out: 8 });
    expect(of("tok.wte")).toMatchObject({ kind: "embedding", in: 100, out: 8 });
    expect(of("tok.embed_positions")).toMatchObject({ kind: "embedding", in: 16, out: 8 });
    expect(of("tok.embed_out")).toMatchObject({ kind: "linear", in: 8, out: 100 });
    expect(of("norm")).toMatchObject({ kind: "norm", className: "RMSNorm" });
    expect(of("bn")).toMatchObject({
      kind: "norm",
      parameters: [
        ["weight", [8]],
        ["bias", [8]],
      ],
    });
    expect(of("conv")).toMatchObject({
      kind: "conv2d",
      in: 3,
      out: 8,
      extra: { kernelSize: [5, 5], groups: 1 },
    });
    expect(of("conv3")).toMatchObject({ kind: "conv3d", extra: { kernelSize: [2, 5, 5] } });
    expect(of("mixer.conv1d")).toMatchObject({ kind: "conv1d", in: 8, out: 8, extra: { groups: 8 } });
    expect(of("attn")).toMatchObject({ kind: "mha", in: 8, out: 24 });
    expect(of("attn.out_proj")).toMatchObject({ kind: "linear" });
    expect(of("vision")).toMatchObject({ kind: "module", parameters: [["class_embedding", [8]]] });
    expect(codes).toEqual([]);
  });

  test("GPT-2's projections are stored the other way round, with and without config.json", () => {
    const tensors = [
      t("h.0.attn.c_attn.weight", [8, 24]),
      t("h.0.attn.c_attn.bias", [24]),
      t("h.0.attn.c_proj.weight", [8, 8]),
      t("h.0.attn.c_proj.bias", [8]),
      t("h.0.attn.bias", [1, 1, 4, 4], "bool"),
    ];
    for (const config of [undefined, { model_type: "gpt2", architectures: ["GPT2Model"] }]) {
      const { of } = infer(tensors, config);
      expect(of("h.0.attn.c_attn")).toMatchObject({ kind: "conv1d_hf", in: 8, out: 24 });
      expect(of("h.0.attn.c_proj")).toMatchObject({ kind: "conv1d_hf", in: 8, out: 8 });
      expect(of("h.0.attn")!.parameters).toEqual([]);
    }
    // StarCoder's GPT-2 has linear layers of the same names.
    const { of } = infer([...linear("h.0.attn.c_attn", 24, 8), ...linear("h.0.attn.c_proj", 8, 8)]);
    expect(of("h.0.attn.c_proj")).toMatchObject({ kind: "linear", in: 8, out: 8 });
  });

  test("stacked experts say which way round they are stored", () => {
    const experts = (gateUp: number[], down: number[]) =>
      infer([
        t("mlp.experts.gate_up_proj", gateUp),
        t("mlp.experts.down_proj", down),
        t("mlp.router.weight", [4, 8]),
      ]);
    const plain = experts([4, 32, 8], [4, 8, 16]);
    expect(plain.of("mlp.experts")).toMatchObject({ kind: "module", extra: { isTransposed: false } });
    expect(plain.of("mlp.router")).toMatchObject({ kind: "module", className: "TopKRouter" });
    expect(experts([4, 8, 32], [4, 16, 8]).of("mlp.experts")?.extra).toEqual({ isTransposed: true });
  });
});

describe("order", () => {
  const names = ["model.embed_tokens", "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"];
  const rest = [
    "model.layers.0.mlp.up_proj",
    "model.layers.2.mlp.up_proj",
    "model.layers.10.mlp.up_proj",
    "model.norm",
  ];
  const all = [...names, ...rest, "lm_head"];
  const tensors = all.map((name) => t(`${name}.weight`, name.endsWith("norm") ? [8] : [8, 8]));

  test("parents come first, numbers in their order, and names as models usually have them", () => {
    const sorted = tensors.toSorted((a, b) => (a.name < b.name ? -1 : 1));
    expect(infer(sorted).names.filter((name) => all.includes(name))).toEqual(all);
    expect(infer(sorted).names.slice(0, 6)).toEqual([
      ...["", "model", "model.embed_tokens", "model.layers", "model.layers.0", "model.layers.0.self_attn"],
    ]);
  });

  test("a file in another order than the alphabet's is in the model's own", () => {
    const own = ["b", "layers.1.v", "layers.1.q", "layers.0.v", "layers.0.q", "a"].map((name) =>
      t(`${name}.weight`, [8, 8]),
    );
    expect(infer(own).names).toEqual([
      ...[
        "",
        "b",
        "layers",
        "layers.0",
        "layers.0.v",
        "layers.0.q",
        "layers.1",
        "layers.1.v",
        "layers.1.q",
        "a",
      ],
    ]);
  });
});

describe("names that transformers changes", () => {
  const gpt2 = [
    t("wte.weight", [100, 8]),
    t("h.0.ln_1.weight", [8]),
    t("h.0.ln_1.bias", [8]),
    t("ln_f.weight", [8]),
  ];

  test("a bare model's file gets its prefix where config.json names a class with a head", () => {
    const config = { model_type: "gpt2", architectures: ["GPT2LMHeadModel"], vocab_size: 100 };
    const { tree, codes, names } = infer(gpt2, config);
    expect(names).toContain("transformer.h.0.ln_1");
    expect([tree.inputEmbeddings, tree.outputEmbeddings]).toEqual(["transformer.wte", "lm_head"]);
    expect(tree.tiedWeights).toEqual([["lm_head.weight", "transformer.wte.weight"]]);
    expect(tree.numParameters).toBe(800 + 8 + 8 + 8);
    expect(codes).toEqual(["prefix-added", "tied-head-added"]);
    expect(infer(gpt2, { ...config, architectures: ["GPT2Model"] }).codes).toEqual([]);
  });

  test("and the other way round", () => {
    const tensors = [t("bert.embeddings.word_embeddings.weight", [100, 8]), t("cls.predictions.bias", [100])];
    const { names, codes } = infer(tensors, { model_type: "bert", architectures: ["BertModel"] });
    expect(names).toEqual(["", "embeddings", "embeddings.word_embeddings"]);
    expect(codes).toEqual(["prefix-removed"]);
  });

  test("old names of layer norms and of weight norm", () => {
    const { of } = infer([
      t("a.LayerNorm.gamma", [8]),
      t("a.LayerNorm.beta", [8]),
      t("scale.gamma", [8]),
      t("conv.weight_g", [1, 1, 16]),
      t("conv.weight_v", [8, 2, 16]),
      t("conv.bias", [8]),
    ]);
    expect(of("a.LayerNorm")).toMatchObject({
      kind: "norm",
      parameters: [
        ["weight", [8]],
        ["bias", [8]],
      ],
    });
    expect(of("scale")).toMatchObject({ kind: "module", parameters: [["gamma", [8]]] });
    expect(of("conv")).toMatchObject({ kind: "conv1d", in: 2, out: 8, parameters: [["bias", [8]]] });
    expect(of("conv.parametrizations.weight")).toMatchObject({ kind: "modulelist" });
  });

  const experts = (sizes: number[]) =>
    sizes.flatMap((size, i) => [
      t(`model.layers.0.block_sparse_moe.experts.${i}.w1.weight`, [size, 8]),
      t(`model.layers.0.block_sparse_moe.experts.${i}.w2.weight`, [8, size]),
      t(`model.layers.0.block_sparse_moe.experts.${i}.w3.weight`, [size, 8]),
    ]);

  test("experts are stacked for the types for which transformers does that, and only alike ones", () => {
    const config = { model_type: "mixtral", architectures: ["MixtralForCausalLM"] };
    const { of, codes, warnings } = infer(experts([16, 16, 16]), config);
    expect(of("model.layers.0.mlp.experts")!.parameters).toEqual([
      ["gate_up_proj", [3, 32, 8]],
      ["down_proj", [3, 8, 16]],
    ]);
    expect(codes).toEqual(["renamed-tensors"]);
    expect(warnings[0]!.message).toContain("block_sparse_moe.experts.0.w1.weight");
    expect(infer(experts([16, 24]), config).of("model.layers.0.mlp.experts.1.w1")).toMatchObject({
      kind: "linear",
    });
    const { tree, warnings: none } = inferTree(experts([16, 16]), config, { asStored: true });
    expect(tree.modules.map(({ name }) => name)).toContain("model.layers.0.block_sparse_moe.experts.1.w3");
    expect(none).toEqual([]);
    expect(
      infer(experts([16, 16]), { model_type: "other" }).of("model.layers.0.block_sparse_moe.experts.0.w1")
        ?.kind,
    ).toBe("linear");
  });
});

describe("tied weights", () => {
  const tensors = [t("model.embed_tokens.weight", [100, 8]), t("model.layers.0.mlp.up_proj.weight", [16, 8])];
  const config = { model_type: "some", architectures: ["SomeForCausalLM"], vocab_size: 100 };

  test("a head that the file leaves out is added, unless config.json says that it is not tied", () => {
    const { of, tree, codes } = infer(tensors, config);
    expect(of("lm_head")).toMatchObject({ kind: "linear", in: 8, out: 100 });
    expect([tree.tiedWithEmbedding, codes]).toEqual([["lm_head"], ["tied-head-added"]]);
    const untied = infer(tensors, { ...config, tie_word_embeddings: false });
    expect([untied.of("lm_head"), untied.codes]).toEqual([undefined, ["missing-head"]]);
    expect(infer(tensors, { ...config, architectures: ["SomeModel"] }).of("lm_head")).toBeUndefined();
  });

  test("all-linear leaves the head alone, as PEFT does", () => {
    const { tree } = infer([...tensors, t("lm_head.weight", [100, 8])], {
      ...config,
      tie_word_embeddings: false,
    });
    expect(selectTargets(tree, { targetModules: "all-linear" }).targets.map(({ name }) => name)).toEqual([
      "model.layers.0.mlp.up_proj",
    ]);
  });
});

describe("quantised weights", () => {
  const config = { hidden_size: 64, quantization_config: { bits: 4 } };
  const q = "model.layers.0.self_attn.q_proj";

  test.each([
    [
      "gptq",
      [
        t(`${q}.qweight`, [8, 32], "int32"),
        t(`${q}.scales`, [1, 32], "float16"),
        t(`${q}.g_idx`, [64], "int32"),
      ],
      [32, 64],
    ],
    [
      "awq",
      [
        t(`${q}.qweight`, [64, 4], "int32"),
        t(`${q}.scales`, [1, 32], "float16"),
        t(`${q}.qzeros`, [1, 4], "int32"),
      ],
      [32, 64],
    ],
    [
      "bitsandbytes 4-bit",
      [
        t(`${q}.weight`, [1024, 1], "uint8"),
        t(`${q}.weight.absmax`, [32]),
        t(`${q}.weight.quant_state.bitsandbytes__nf4`, [90], "uint8"),
      ],
      [32, 64],
    ],
    ["bitsandbytes 8-bit", [t(`${q}.weight`, [32, 64], "int8"), t(`${q}.SCB`, [32])], [32, 64]],
    ["fp8", [t(`${q}.weight`, [32, 64], "float8e4m3fn"), t(`${q}.weight_scale_inv`, [1, 1])], [32, 64]],
    [
      "compressed-tensors",
      [t(`${q}.weight_packed`, [32, 8], "int32"), t(`${q}.weight_scale`, [32, 1])],
      [32, 64],
    ],
  ] as const)("%s is recognised, and its shape is the unpacked one", (method, tensors, [out, inputs]) => {
    const { of, warnings, names } = infer([...tensors], config);
    expect(of(q)).toMatchObject({ kind: "linear", in: inputs, out, parameters: [["weight", [out, inputs]]] });
    expect(names).not.toContain(`${q}.weight`);
    expect(warnings).toMatchObject([{ code: "quantized", details: { methods: { [method]: 1 } } }]);
  });

  test("where the shape cannot be known, it says so", () => {
    const { of, warnings } = infer([t("x.weight", [1000, 1], "uint8"), t("x.weight.absmax", [16])]);
    expect(of("x")).toMatchObject({ kind: "linear", in: null, out: null });
    expect(warnings[0]!.message).toContain("not known");
  });
});

describe("strange input", () => {
  test.each([
    ["nothing", []],
    ["no dots", [t("weight", [2, 2])]],
    ["empty parts", [t("..weight", [2, 2]), t("", [1])]],
    ["names of prototypes", [t("__proto__.constructor.weight", [2, 2]), t("toString", [1])]],
    ["a long name", [t(`${"a.".repeat(2000)}weight`, [2, 2])]],
    ["a scalar weight", [t("x.weight", [])]],
    ["seven dimensions", [t("x.weight", [1, 2, 1, 1, 1, 1, 1])]],
  ])("%s", (_, tensors) => {
    const { tree } = infer(tensors);
    expect(tree.modules[0]!.name).toBe("");
    expect(new Set(tree.modules.map(({ name }) => name)).size).toBe(tree.modules.length);
  });

  test.each([null, 1, "x", [], { architectures: 3, vocab_size: "many" }])("config.json is %j", (config) => {
    expect(infer([t("a.weight", [2, 2])], config).of("a")?.kind).toBe("linear");
  });
});
