import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import {
  type Cost,
  type CostOptions,
  estimateCost,
  type ModuleInfo,
  type ModuleTree,
  type SelectionConfig,
  selectTargets,
} from "../../../src/selection/index.ts";
import { Selection } from "../../../src/selection/peft/selection.ts";
import { findSkeleton, vectorFiles } from "../../conformance/vector-files.ts";
import { makeMoeTree } from "../peft/moe-tree.ts";

const skeleton = (name: string): ModuleTree => findSkeleton(name, join(import.meta.dirname, "x"));
const costOf = (tree: ModuleTree | string, config: SelectionConfig, options?: CostOptions): Cost => {
  const found = typeof tree === "string" ? skeleton(tree) : tree;
  return estimateCost(found, selectTargets(found, config), options);
};

const names = vectorFiles(join(import.meta.dirname, "../../vectors/skeletons")).map(
  (path) => /([^/]+)\.json\.gz$/.exec(path)![1]!,
);

/** The figures that a selection shares with all-linear. */
const figures = ({
  trainableParameters,
  adapterParameters,
  adapterBytes,
  gradientBytes,
  optimizerBytes,
  forwardFlops,
  backwardFlops,
  activationBytes,
}: Cost | Cost["allLinear"]) => ({
  ...{ trainableParameters, adapterParameters, adapterBytes, gradientBytes, optimizerBytes },
  ...{ forwardFlops, backwardFlops, activationBytes },
});

describe("all-linear, from shapes alone, is what selecting it gives", () => {
  // PEFT refuses to adapt every linear layer of Mamba
  test.each(names.filter((name) => !name.startsWith("mamba")))("%s", (name) => {
    const full = costOf(name, { r: 8, targetModules: "all-linear" });
    expect(figures(full.allLinear)).toEqual(figures(full));
    expect(Object.values(full.allLinear.share).every((share) => share === 1 || Number.isNaN(share))).toBe(
      true,
    );
  });

  test.each<[string, SelectionConfig]>([
    ["DoRA", { useDora: true }],
    ["biases of the adapters", { loraBias: true }],
    ["a task with a head", { taskType: "SEQ_CLS" }],
    ["biases of the model", { bias: "all" }],
    ["dropout", { loraDropout: 0.1 }],
  ])("with %s", (_, config) => {
    for (const name of ["bert-base-seqcls", "edge-llama-seqcls", "gpt2"]) {
      const { trainableParameters, allLinear, forwardFlops, backwardFlops } = costOf(name, {
        ...config,
        targetModules: "all-linear",
      });
      expect(allLinear.trainableParameters).toBe(trainableParameters);
      expect(allLinear.forwardFlops).toEqual(forwardFlops);
      expect(allLinear.backwardFlops).toEqual(backwardFlops);
    }
  });

  test("another selection's is the same", () => {
    const some = costOf("florence2-base", { r: 8, targetModules: ["q_proj"] }, { imageSize: 768 });
    const full = costOf("florence2-base", { r: 8, targetModules: "all-linear" }, { imageSize: 768 });
    expect(figures(some.allLinear)).toEqual(figures(full));
    expect(some.allLinear.share.backwardFlops).toBeLessThan(1);
  });
});

test("file and parameters are the state dict's", () => {
  for (const name of [
    "llama-3.2-1b",
    "resnet-50",
    "edge-siglip",
    "mixtral-8x7b",
    "olmoe-1b-7b",
    "t5-small",
  ]) {
    const tree = skeleton(name);
    const targetModules =
      name === "resnet-50" ? ["convolution"] : name === "edge-siglip" ? ["attention"] : "all-linear";
    const selection = selectTargets(tree, { r: 4, targetModules });
    const parameters = selection.stateDict.reduce(
      (sum, [, shape]) => sum + shape.reduce((a, b) => a * b, 1),
      0,
    );
    expect(estimateCost(tree, selection).adapterParameters, name).toBe(parameters);
  }
});

describe("published operations of known models", () => {
  /** In multiplications and additions, of one image, without LoRA's. */
  const imageFlops = (name: string, options: CostOptions): number => {
    const targetModules = name === "resnet-50" ? ["convolution"] : "all-linear";
    const { forwardFlops, per } = costOf(name, { targetModules }, options);
    expect(per).toBe("example");
    return forwardFlops.frozen + forwardFlops.attention;
  };
  test.each([
    ["resnet-50", { imageSize: 224 }, 2 * 4.09e9], // torchvision's table
    ["vit-base", {}, 2 * 17.56e9], // torchvision's vit_b_16
  ])("%s", (name, options, published) => {
    expect(imageFlops(name, options) / published).toBeCloseTo(1, 2);
  });

  test("two operations per parameter and token, of the parameters that multiply", () => {
    for (const name of ["llama-3.2-1b", "qwen2.5-0.5b", "gemma-2-2b", "mistral-7b"]) {
      const tree = skeleton(name);
      const { forwardFlops } = costOf(tree, { targetModules: ["q_proj"] });
      const lookups = tree.config.tieWordEmbeddings
        ? 0
        : tree.modules.reduce(
            (sum, { kind, in: rows, out }) => sum + (kind === "embedding" ? rows! * out! : 0),
            0,
          );
      const multiplied = tree.numParameters - lookups;
      expect((forwardFlops.frozen + forwardFlops.head) / (2 * multiplied)).toBeCloseTo(1, 3);
    }
  });
});

describe("where the backward pass ends", () => {
  const at = (layers: number[]) =>
    costOf("llama-3.2-1b", {
      targetModules: ["q_proj", "v_proj"],
      layersToTransform: layers,
      layersPattern: "layers",
    });
  const from = (first: number): number[] => Array.from({ length: 16 - first }, (_, i) => first + i);

  test("the higher the lowest adapted layer, the more is saved", () => {
    const costs = Array.from({ length: 16 }, (_, first) => at(from(first)));
    expect(costs.map(({ lowestLayer }) => lowestLayer)).toEqual(
      Array.from({ length: 16 }, (_, first) => `model.layers.${first}`),
    );
    for (const [i, cost] of costs.entries()) {
      const lower = costs[i - 1];
      if (lower === undefined) continue;
      expect(cost.saved.backwardShare).toBeGreaterThan(lower.saved.backwardShare);
      expect(cost.saved.frozenForwardShare).toBeGreaterThan(lower.saved.frozenForwardShare);
      expect(cost.backwardFlops.total).toBeLessThan(lower.backwardFlops.total);
      expect(cost.activationBytes).toBeLessThan(lower.activationBytes);
    }
  });

  test("with the head alone it does not reach the layers", () => {
    const { lowestLayer, backwardFlops, saved } = costOf("mistral-7b", { targetModules: ["lm_head"] });
    expect(lowestLayer).toBe("lm_head");
    expect(backwardFlops.total).toBe(backwardFlops.trained);
    expect(saved.backwardShare).toBeGreaterThan(0.99);
  });

  test("it is the lowest that counts, not how many", () => {
    expect(at([3, 15]).lowestLayer).toBe("model.layers.3");
    expect(at([3, 15]).saved.frozenForwardShare).toBe(at(from(3)).saved.frozenForwardShare);
  });

  test("what is computed and what is saved make a whole pass", () => {
    const whole = ({ backwardFlops, saved }: Cost): number =>
      backwardFlops.total - backwardFlops.trained + saved.activationGradientFlops;
    // but for LoRA's own part, which differs
    expect(whole(at([15])) / whole(at(from(0)))).toBeCloseTo(1, 3);
  });
});

describe("towers", () => {
  const tower = (cost: Cost, path: string) => cost.towers.find((candidate) => candidate.path.endsWith(path))!;

  test("adapters in an encoder need the gradient through the decoder", () => {
    const encoder = costOf("bart-base", { targetModules: ".*encoder\\.layers\\.5\\..*q_proj" });
    expect(tower(encoder, "decoder")).toMatchObject({
      isCrossed: true,
      lowestLayer: "model.decoder.layers.0",
    });
    expect(encoder.lowestLayer).toBe("model.encoder.layers.5");
    const decoder = costOf("bart-base", { targetModules: ".*decoder\\.layers\\.5\\..*q_proj" });
    expect(tower(decoder, "encoder").backwardFlops!.total).toBe(0);
    expect(tower(decoder, "encoder").lowestLayer).toBeNull();
    expect(decoder.lowestLayer).toBe("model.decoder.layers.5");
    expect(decoder.backwardFlops.total).toBeLessThan(encoder.backwardFlops.total / 2);
  });

  test("towers side by side do not", () => {
    const text = costOf("clip-vit-b32", { targetModules: ".*text_model.*q_proj" });
    expect(tower(text, "vision_model.encoder").backwardFlops!.total).toBe(0);
    expect(tower(text, "vision_model.encoder").positions).toBe(50);
    expect(tower(text, "text_model.encoder").backwardFlops!.total).toBeGreaterThan(0);
  });

  test("adapters in a vision tower need the gradient through the language model", () => {
    const vision = costOf("qwen2-vl-2b", { targetModules: ".*visual.*qkv" });
    expect(tower(vision, "language_model").isCrossed).toBe(true);
    expect(vision.lowestLayer).toBe("model.visual.blocks.0");
  });

  test("a tower of which nobody knows the number of positions is left out, and said to be", () => {
    const unknown = costOf("qwen2-vl-2b", { targetModules: ["qkv"] });
    expect(tower(unknown, "visual")).toMatchObject({
      positions: null,
      forwardFlops: null,
      activationBytes: null,
    });
    expect(unknown.assumptions.join("\n")).toContain("model.visual is not counted");
    const known = costOf("qwen2-vl-2b", { targetModules: ["qkv"] }, { imageTokens: 256 });
    expect(tower(known, "visual").forwardFlops!.total).toBeGreaterThan(0);
    expect(known.forwardFlops.total).toBeGreaterThan(unknown.forwardFlops.total);
    expect(known.assumptions.join("\n")).not.toContain("model.visual is not counted");
  });

  test("the decoder's length counts for the decoder", () => {
    const config = { targetModules: ["q"] };
    const [long, short] = [costOf("t5-small", config), costOf("t5-small", config, { targetLength: 64 })];
    expect(tower(short, "decoder").positions).toBe(64);
    expect(tower(short, "encoder").positions).toBe(512);
    expect(short.forwardFlops.total).toBeLessThan(long.forwardFlops.total);
  });

  test("sound has positions of its own, twice as many before a stride of two", () => {
    const { towers } = costOf("whisper-tiny", { targetModules: ["q_proj"] });
    expect(towers.map(({ path, positions }) => [path, positions])).toEqual([
      ["model.encoder", 1500],
      ["model.decoder", 512],
    ]);
  });
});

describe("mixtures of experts", () => {
  const tiny = makeMoeTree(3, 8);
  const withTopK = (k: number): ModuleTree => ({
    ...tiny,
    config: { ...tiny.config, numExpertsPerToken: k },
  });

  test("only the experts that a token goes through count", () => {
    const perExpert = 2 * 3 * 3 * 64 * 32;
    const [one, four] = [1, 4].map(
      (k) => costOf(withTopK(k), { targetModules: ["q_proj"] }).forwardFlops.frozen,
    );
    expect(four! - one!).toBe(3 * perExpert);
  });

  test("what config.json does not say is assumed, and said", () => {
    for (const tree of [tiny, skeleton("mixtral-8x7b")])
      expect(costOf(tree, { targetModules: ["q_proj"] }).assumptions).toContain(
        "2 of 8 experts per token: config.json does not say.",
      );
    expect(costOf(withTopK(2), { targetModules: ["q_proj"] }).assumptions.join("\n")).not.toContain(
      "experts",
    );
  });

  test("stacked or listed, experts cost the same", () => {
    const cost = costOf("mixtral-8x7b", { targetModules: ["q_proj"] });
    const active = 2 * 32 * (2 * 3 * 4096 * 14336 + 2 * 4096 * (4096 + 1024) + 8 * 4096);
    expect(cost.forwardFlops.frozen).toBe(active);
  });

  test("a listed expert of another size is counted by itself", () => {
    const modules = tiny.modules.map(
      (module): ModuleInfo =>
        module.name === "model.layers.0.mlp.experts.5.down_proj" ? { ...module, out: 65 } : module,
    );
    const { trainableParameters } = costOf({ ...tiny, modules }, { r: 2, targetModules: "all-linear" });
    expect(trainableParameters).toBe(
      costOf(tiny, { r: 2, targetModules: "all-linear" }).trainableParameters + 2,
    );
    expect(
      costOf({ ...tiny, modules }, { r: 2, targetModules: ["q_proj"] }).allLinear.trainableParameters,
    ).toBe(trainableParameters);
  });

  test("a large model's file is sized without listing its tensors, to some bytes in a million", () => {
    const tree = makeMoeTree(12, 128);
    const selection = selectTargets(tree, { r: 8, targetModules: "all-linear" });
    const listed = vi.spyOn(Selection.prototype, "stateDict", "get");
    const { adapterBytes, adapterParameters, allLinear } = estimateCost(tree, selection);
    expect(allLinear.adapterBytes).toBe(adapterBytes);
    expect(listed).not.toHaveBeenCalled();
    listed.mockRestore();
    const { stateDict } = selection;
    let offset = 0;
    let header = '{"__metadata__":{"format":"pt"}}'.length;
    for (const [name, shape] of [...stateDict].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const end = offset + 4 * shape.reduce((a, b) => a * b, 1);
      header += JSON.stringify({ [name]: { dtype: "F32", shape, data_offsets: [offset, end] } }).length - 1;
      offset = end;
    }
    expect(adapterParameters).toBe(offset / 4);
    expect(Math.abs(adapterBytes / (8 + 8 * Math.ceil(header / 8) + offset) - 1)).toBeLessThan(1e-5);
  });
});

test("replicated layers are executed as often as they are listed", () => {
  const config = { r: 4, targetModules: "all-linear" };
  const layerReplication: [number, number][] = [
    [0, 12],
    [4, 16],
  ];
  const plain = costOf("llama-3.2-1b", config);
  const more = costOf("llama-3.2-1b", { ...config, layerReplication });
  expect(figures(more.allLinear)).toEqual(figures(more));
  for (const part of ["frozen", "trained", "attention"] as const)
    expect(more.forwardFlops[part]).toBe((plain.forwardFlops[part] * 24) / 16);
  expect(more.trainableParameters).toBe((plain.trainableParameters * 24) / 16);
  expect(more.frozenWeightBytes).toBe(plain.frozenWeightBytes);
  const last = costOf("llama-3.2-1b", {
    ...config,
    targetModules: ["v_proj"],
    layerReplication,
    layersToTransform: [23],
  });
  expect(last.lowestLayer).toBe("model.layers.23");
});

test("a batch's shape scales what depends on it", () => {
  const config = { targetModules: ["q_proj", "v_proj"] };
  const [one, two, four] = [1, 2, 4].map((batchSize) => costOf("llama-3.2-1b", config, { batchSize }));
  expect(four!.forwardFlops).toEqual(one!.forwardFlops);
  // But the logits: one chunk of them is there at a time, of 256 rows, and of more from 1024 on.
  const vocabulary = 128_256;
  const logits = 4 * 256 * vocabulary;
  expect(two!.activationBytes - logits).toBe(2 * (one!.activationBytes - logits));
  expect(four!.activationBytes - 2 * logits).toBe(4 * (one!.activationBytes - logits));
  const long = costOf("llama-3.2-1b", config, { sequenceLength: 1024 });
  expect(long.forwardFlops.attention).toBe(2 * one!.forwardFlops.attention);
  expect(long.forwardFlops.frozen).toBe(one!.forwardFlops.frozen);
  const labelled = costOf("llama-3.2-1b", config, { labelFraction: 0.25 });
  expect(labelled.forwardFlops.head).toBe(one!.forwardFlops.head / 4);
});

test("frozen weights take what config.json's dtype takes", () => {
  const tree = skeleton("llama-3.2-1b");
  const config = { targetModules: ["q_proj"] };
  expect(costOf(tree, config).frozenWeightBytes).toBe(4 * tree.numParameters);
  const half = { ...tree, config: { ...tree.config, dtype: "bfloat16" } };
  expect(costOf(half, config).frozenWeightBytes).toBe(2 * tree.numParameters);
  expect(costOf(half, config, { bytesPerWeight: 0.5 }).frozenWeightBytes).toBe(tree.numParameters / 2);
});

test("any tree has a cost: one without layers, one without anything known", () => {
  const linear = (name: string, inputs: number, outputs: number): ModuleInfo => ({
    ...{ name, className: "Linear", kind: "linear", in: inputs, out: outputs },
    parameters: [["weight", [outputs, inputs]]],
  });
  const tree: ModuleTree = {
    ...makeMoeTree(1, 1),
    modules: [
      { name: "", className: "Mlp", kind: "module", in: null, out: null, parameters: [] },
      linear("first", 10, 20),
      linear("second", 20, 5),
    ],
    ...{ inputEmbeddings: null, outputEmbeddings: null, numParameters: 300 },
  };
  const cost = costOf(tree, { r: 2, targetModules: ["second"] });
  expect(cost.forwardFlops).toMatchObject({ frozen: 2 * 300, trained: 2 * 2 * 25 });
  expect(cost.backwardFlops).toMatchObject({ frozen: 0, trained: 2 * 2 * (20 + 2 * 5) });
});
