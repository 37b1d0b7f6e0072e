import { describe, expect, test } from "vitest";
import {
  freshAdapter,
  getPeftModel,
  LoraConfig,
  type LoraConv2d,
  moduleTreeOf,
  PeftModel,
} from "../../src/adapters/index.ts";
import type { TensorEntry } from "../../src/checkpoint/index.ts";
import { readTensorAsFloat32 } from "../../src/checkpoint/index.ts";
import { AdapterError, SelectionError } from "../../src/errors.ts";
import { input, op, type Value } from "../../src/graph/index.ts";
import {
  Conv2d,
  type Layer,
  LayerNorm,
  Linear,
  ModuleList,
  PreTrainedModel,
  withDropoutNoise,
} from "../../src/nn/index.ts";
import { parseSkeleton } from "../../src/selection/index.ts";
import { tensor, zeros } from "../../src/tensor/index.ts";
import { maxAbsDifference } from "../support/close.ts";
import { evaluate, sharedEngine } from "../support/run-graph.ts";
import {
  adapterPath,
  type ConvolutionOptions,
  expectRecorded,
  expectSavedAsRecorded,
  layerCases,
  recordedTensors,
} from "./layer-vectors.ts";
import { rejection } from "./support.ts";

const engine = sharedEngine({ threads: 1 });

/** Convolutions in a row with tanh after each, then the mean over each image, LayerNorm and Linear. */
class Chain extends PreTrainedModel {
  override readonly className = "Chain";
  override readonly modelType = "custom";
  override readonly inputEmbeddingPath = null;
  override readonly outputEmbeddingPath = null;
  override readonly tiedEmbeddings = false;
  override readonly nameOrPath = "chain";
  readonly layers: ModuleList<Layer>;
  readonly norm: Layer;
  readonly head: Layer;

  constructor(layers: readonly ConvolutionOptions[]) {
    super();
    this.layers = new ModuleList<Layer>(
      layers.map(
        ({ in: inputs, out, kernel_size: kernelSize, ...options }) =>
          new Conv2d(inputs, out, { kernelSize, ...options }),
      ),
    );
    const width = layers.at(-1)!.out;
    this.norm = new LayerNorm(width);
    this.head = new Linear(width, 5, { bias: true });
  }

  forward(images: Value): Value {
    const last = this.layers.items.reduce((x, layer) => op.tanh(layer.forward(x)), images);
    return this.head.forward(this.norm.forward(op.reduceMean(last, { axes: [2, 3], keepdims: false })));
  }
}

function build(layers: readonly ConvolutionOptions[], stored?: ReadonlyMap<string, TensorEntry>): Chain {
  const model = new Chain(layers);
  for (const [path, parameter] of model.namedParameters()) {
    parameter.name = path;
    if (stored) parameter.storage = stored.get(`base.${path}`);
    else parameter.data = zeros("float32", parameter.shape);
  }
  return model;
}

const configOf = (settings: Record<string, unknown>): LoraConfig =>
  LoraConfig.fromJSON({ ...settings, peft_type: "LORA" });

describe.each(layerCases.convolution.map((recorded) => [recorded.name, recorded] as const))(
  "%s",
  (_, recorded) => {
    const load = async () => {
      const tensors = await recordedTensors(recorded);
      const images = await readTensorAsFloat32(tensors.get("images")!);
      return { model: build(recorded.layers, tensors), images };
    };

    test("the module tree is PyTorch's", () => {
      const { modules } = parseSkeleton({ modules: recorded.rows });
      expect(moduleTreeOf(build(recorded.layers)).modules).toEqual(modules);
    });

    test("selects PEFT's keys, counts its parameters and warns where it does", async () => {
      const peft = getPeftModel((await load()).model, configOf(recorded.settings));
      expect([...peft.stateDict().keys()].sort()).toEqual(recorded.adapterKeys);
      const lines: string[] = [];
      peft.printTrainableParameters((line) => lines.push(line));
      expect(lines).toEqual([recorded.printed]);
      const warned = peft.selection.warnings.filter(({ code }) => code === "groups-conv");
      expect(warned).toHaveLength(recorded.warnings.length);
    });

    test("output and every gradient are PEFT's", async () => {
      const { model, images } = await load();
      const peft = await PeftModel.fromPretrained(model, adapterPath(recorded), { isTrainable: true });
      const output = peft.baseModel.forward(input("images", "float32", images.shape));
      const loss = op.reduceSum(op.mul(output, output), { axes: [0, 1], keepdims: false });
      await expectRecorded(peft, recorded, { output, loss }, engine(), { images });
    });

    test("loading and saving gives PEFT's own files, frozen or not", async () => {
      for (const isTrainable of [true, false])
        await expectSavedAsRecorded(
          await PeftModel.fromPretrained((await load()).model, adapterPath(recorded), { isTrainable }),
          recorded,
        );
    });

    test("a fresh adapter changes nothing", async () => {
      const { model, images } = await load();
      const scores = async () => {
        const output = model.forward(input("images", "float32", images.shape));
        const feeds = { ...(await model.parameterFeeds()), images };
        return (await evaluate(engine(), { output }, feeds))["output"]!.data as Float32Array;
      };
      const before = await scores();
      getPeftModel(model, configOf(recorded.settings));
      const after = await scores();
      expect(maxAbsDifference(after, before)).toBeLessThan(1e-6);
    });
  },
);

describe("what PEFT refuses", () => {
  const refused = (stage: string, type: string, target: string) =>
    layerCases.refused.find(
      (entry) =>
        entry.layers &&
        entry.stage === stage &&
        entry.type === type &&
        String(entry.settings["target_modules"]) === target,
    )!;

  test("a rank that the groups do not divide", () => {
    const { layers, settings } = refused("inject", "ValueError", "layers.1");
    const attempt = () => getPeftModel(build(layers!), configOf(settings));
    expect(attempt).toThrow(SelectionError);
    expect(attempt).toThrow(/"layers\.1" is a convolution with 4 groups, which do not divide r = 3/);
  });

  test("LoRA on a norm", () => {
    const { layers, settings } = refused("inject", "ValueError", "norm");
    expect(() => getPeftModel(build(layers!), configOf(settings))).toThrow(/LayerNorm cannot carry LoRA/);
  });

  test("a dilated convolution, when the model is called", () => {
    const { layers, size, settings, message } = refused("forward", "RuntimeError", "layers.0");
    const peft = getPeftModel(build(layers!), configOf(settings));
    const attempt = () => peft.baseModel.forward(input("images", "float32", [2, 3, ...size!]));
    expect(message).toMatch(/size of tensor a \(5\) must match the size of tensor b \(7\)/);
    expect(attempt).toThrow(AdapterError);
    expect(attempt).toThrow(
      /"layers\.0" makes images of \[8, 5\] and its adapter of \[10, 7\].*dilation \(2 × 2\)/,
    );
  });
});

describe("LoRA on a convolution", () => {
  const layers: ConvolutionOptions[] = [{ in: 6, out: 8, kernel_size: [3, 5], groups: 2 }];
  const adapted = (settings: Record<string, unknown>, seed = 1): LoraConv2d => {
    const model = build(layers);
    getPeftModel(model, configOf({ r: 64, target_modules: ["layers.0"], ...settings }), { seed });
    return model.getModule("layers.0") as LoraConv2d;
  };
  const values = (layer: LoraConv2d) => layer.adapterParameters().map(({ data }) => data!.data);
  const largest = (numbers: Float32Array) => numbers.reduce((most, x) => Math.max(most, Math.abs(x)), 0);

  test("has PEFT's modules and shapes", () => {
    const layer = adapted({ r: 4 });
    expect([...layer.namedModules()].map(([path]) => path)).toEqual([
      "",
      "base_layer",
      "lora_dropout",
      "lora_dropout.default",
      "lora_A",
      "lora_A.default",
      "lora_B",
      "lora_B.default",
    ]);
    expect(layer.adapterParameters().map(({ name, shape }) => [name, shape])).toEqual([
      ["base_model.model.layers.0.lora_A.weight", [4, 6, 3, 5]],
      ["base_model.model.layers.0.lora_B.weight", [8, 2, 1, 1]],
    ]);
  });

  test("starts as PyTorch's convolutions do: within 1/√(in · kernel)", () => {
    const [a, b] = values(adapted({}));
    const limit = 1 / Math.sqrt(6 * 15);
    expect(largest(a!)).toBeLessThanOrEqual(Math.fround(limit));
    expect(largest(a!)).toBeGreaterThan(0.99 * limit);
    expect(largest(b!)).toBe(0);
    const [, random] = values(adapted({ init_lora_weights: false }));
    expect(largest(random!)).toBeLessThanOrEqual(1 / Math.sqrt(32));
    expect(largest(random!)).toBeGreaterThan(0.9 / Math.sqrt(32));
    const [gaussian] = values(adapted({ init_lora_weights: "gaussian" }));
    const deviation = Math.sqrt(gaussian!.reduce((sum, x) => sum + x * x, 0) / gaussian!.length);
    expect(Math.abs(deviation * 64 - 1)).toBeLessThan(6 / Math.sqrt(2 * gaussian!.length));
    expect(values(adapted({}, 2))[0]).not.toEqual(a);
  });

  test.each([{}, { init_lora_weights: false }, { init_lora_weights: "gaussian" }])(
    "has the tensors of an adapter that is made without the model: %j",
    async (settings) => {
      const config = configOf({ r: 4, target_modules: ["layers.0", "head"], ...settings });
      const model = build(layers);
      const { tensors } = await freshAdapter(moduleTreeOf(model), config, { seed: 3 });
      expect([...tensors]).toEqual([...getPeftModel(model, config, { seed: 3 }).stateDict()]);
      expect(tensors.size).toBe(4);
    },
  );

  test("is taken out again where an adapter does not fit", async () => {
    const recorded = layerCases.convolution[0]!;
    const model = build(layers);
    const before = [...model.namedModules()];
    const error = await rejection(PeftModel.fromPretrained(model, adapterPath(recorded)));
    expect(error).toMatchObject({ name: "AdapterError", code: "adapter-does-not-fit" });
    expect([...model.namedModules()]).toEqual(before);
  });

  test("drops single values of what the adapter sees, by their image's noise", async () => {
    const layer = adapted({ r: 2, lora_dropout: 0.25, init_lora_weights: false });
    const [a, b] = layer.adapterParameters();
    // every weight 1: an output is the sum of what is left of its window, times the channels of its group
    a!.data!.data.fill(1);
    b!.data!.data.fill(1);
    const shape = [200, 6, 3, 5];
    const x = input("x", "float32", shape);
    const output = withDropoutNoise([input("noise", "int32", [200])], () => layer.forward(x));
    const bits = Int32Array.from({ length: 200 }, (_, i) => Math.imul(i + 1, 0x9e3779b1));
    const parameters = [...layer.namedParameters()];
    const feeds = {
      x: tensor("float32", shape, new Float32Array(200 * 90).fill(1)),
      noise: tensor("int32", [200], bits),
      ...Object.fromEntries(parameters.map(([, { name, data }]) => [name, data!])),
    };
    const sums = (await evaluate(engine(), { output }, feeds))["output"]!.data as Float32Array;
    // scaling 8 / 2, one low channel per group: 4 · kept / 0.75
    const kept = Array.from({ length: 200 }, (_, i) => (sums[i * 8]! * 0.75) / 4);
    for (const count of kept) expect(Math.abs(count - Math.round(count))).toBeLessThan(1e-3);
    const mean = kept.reduce((sum, count) => sum + count, 0) / kept.length;
    expect(Math.abs(mean - 67.5)).toBeLessThan((6 * Math.sqrt(90 * 0.25 * 0.75)) / Math.sqrt(200));
    expect(new Set(kept.map(Math.round)).size).toBeGreaterThan(5);
    const plain = (await evaluate(engine(), { output: layer.forward(x) }, feeds))["output"]!
      .data as Float32Array;
    expect(Math.abs(plain[0]! - 4 * 90)).toBeLessThan(1e-3);
  });
});
