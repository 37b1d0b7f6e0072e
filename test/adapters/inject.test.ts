import { describe, expect, test } from "vitest";
import type { LoraConfigOptions } from "../../src/adapters/config-options.ts";
import {
  getPeftModel,
  LoraConfig,
  LoraEmbedding,
  LoraLinear,
  type PeftModel,
} from "../../src/adapters/index.ts";
import { AdapterError } from "../../src/errors.ts";
import type { CausalLM } from "../../src/models/index.ts";
import { maxAbsDifference } from "../support/close.ts";
import { logitsOf } from "../support/parity.ts";
import { sharedEngine } from "../support/run-graph.ts";
import { referenceCase } from "./support.ts";

const engine = sharedEngine({ threads: 1 });

async function adapted(
  options: LoraConfigOptions,
  { base = "llama-qv", seed = 1 }: { base?: string; seed?: number } = {},
): Promise<PeftModel<CausalLM>> {
  return getPeftModel(await referenceCase(base).loadBase(), new LoraConfig(options), { seed });
}
const valuesOf = (peft: PeftModel<CausalLM>, key: string): Float32Array =>
  peft.trainableParameters().get(`base_model.model.${key}`)!.data!.data;
const layer0 = (part: string) => `model.layers.0.self_attn.q_proj.${part}.weight`;

const mean = (values: Float32Array): number => values.reduce((sum, value) => sum + value, 0) / values.length;
const deviation = (values: Float32Array): number => {
  const center = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - center) ** 2, 0) / values.length);
};

/** Largest distance between the empirical distribution and one with this distribution function (Kolmogorov, Smirnov). */
function distance(values: Float32Array, distribution: (x: number) => number): number {
  const sorted = values.toSorted();
  let largest = 0;
  for (const [i, value] of sorted.entries()) {
    const expected = distribution(value);
    largest = Math.max(largest, expected - i / sorted.length, (i + 1) / sorted.length - expected);
  }
  return largest;
}
/** Passed by chance once in ten million samples: 2 exp(-2 n D²) = 1e-7. */
const bound = (n: number): number => Math.sqrt(Math.log(2e7) / (2 * n));

/** Φ, by the complementary error function's continued fraction of Abramowitz and Stegun 7.1.26 (error 1.5e-7). */
function normalDistribution(x: number): number {
  const t = 1 / (1 + (0.3275911 * Math.abs(x)) / Math.SQRT2);
  const polynomial =
    t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  const tail = (polynomial * Math.exp(-(x * x) / 2)) / 2;
  return x > 0 ? 1 - tail : tail;
}

describe("the module tree", () => {
  test("has PEFT's modules under PEFT's paths", async () => {
    const { baseModel } = await adapted({
      r: 2,
      targetModules: ["q_proj", "embed_tokens"],
      modulesToSave: ["lm_head"],
    });
    const paths = [...baseModel.namedModules()].map(([path]) => path);
    const q = "model.layers.1.self_attn.q_proj";
    expect(paths.filter((path) => path.startsWith(q))).toEqual([
      q,
      `${q}.base_layer`,
      `${q}.lora_dropout`,
      `${q}.lora_dropout.default`,
      `${q}.lora_A`,
      `${q}.lora_A.default`,
      `${q}.lora_B`,
      `${q}.lora_B.default`,
    ]);
    expect(paths.filter((path) => path.startsWith("lm_head"))).toEqual([
      "lm_head",
      "lm_head.original_module",
      "lm_head.modules_to_save",
      "lm_head.modules_to_save.default",
    ]);
    const parameters = [...baseModel.namedParameters()].map(([path]) => path);
    expect(parameters).toContain("model.embed_tokens.lora_embedding_A");
    expect(parameters).toContain("model.embed_tokens.base_layer.weight");
    expect(baseModel.getModule(q)).toBeInstanceOf(LoraLinear);
    expect(baseModel.getModule("model.embed_tokens")).toBeInstanceOf(LoraEmbedding);
    expect(baseModel.getModule("model.layers.1.self_attn.k_proj").className).toBe("Linear");
  });

  test("names what is trained by its saved key", async () => {
    const peft = await adapted({ r: 2, targetModules: ["q_proj"], modulesToSave: ["lm_head"] });
    for (const [key, parameter] of peft.trainableParameters()) expect(parameter.name).toBe(key);
    expect([...peft.trainableParameters().keys()]).toEqual([
      "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
      "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight",
      "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight",
      "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight",
      "base_model.model.lm_head.weight",
    ]);
  });

  test("a fresh adapter changes nothing", async () => {
    for (const base of ["llama-qv", "qwen2-tied-embedding-lora"]) {
      const reference = referenceCase(base);
      const batch = reference.batch();
      const before = await logitsOf(await reference.loadBase(), engine(), batch);
      for (const initLoraWeights of [true, "gaussian"] as const) {
        const options = {
          initLoraWeights,
          targetModules: ["embed_tokens", "q_proj", "up_proj"],
          modulesToSave: ["norm"],
        };
        const peft = await adapted(options, { base });
        await peft.materialize();
        expect(maxAbsDifference(await logitsOf(peft.baseModel, engine(), batch), before)).toBe(0);
      }
      const changed = await adapted({ initLoraWeights: false, targetModules: ["q_proj"] }, { base });
      expect(await logitsOf(changed.baseModel, engine(), batch)).not.toEqual(before);
    }
  });
});

describe("how weights start", () => {
  const r = 256; // 8192 values for the 32 input features
  const wide = (options: LoraConfigOptions, seed = 1) =>
    adapted({ r, targetModules: ["q_proj"], ...options }, { seed });

  test("true: A uniform between ±1/√in, B zero", async () => {
    const peft = await wide({});
    const a = valuesOf(peft, layer0("lora_A"));
    const limit = 1 / Math.sqrt(32);
    expect(a).toHaveLength(r * 32);
    expect(Math.max(...a)).toBeLessThanOrEqual(Math.fround(limit));
    expect(Math.min(...a)).toBeGreaterThanOrEqual(Math.fround(-limit));
    expect(Math.max(...a)).toBeGreaterThan(0.99 * limit);
    expect(distance(a, (x) => (x + limit) / (2 * limit))).toBeLessThan(bound(a.length));
    expect(valuesOf(peft, layer0("lora_B")).every((value) => Object.is(value, 0))).toBe(true);
  });

  test('"gaussian": A normal with deviation 1/r, B zero', async () => {
    const peft = await wide({ initLoraWeights: "gaussian" });
    const a = valuesOf(peft, layer0("lora_A"));
    expect(distance(a, (x) => normalDistribution(x * r))).toBeLessThan(bound(a.length));
    expect(Math.abs(deviation(a) * r - 1)).toBeLessThan(6 / Math.sqrt(2 * a.length));
    expect(valuesOf(peft, layer0("lora_B")).every((value) => value === 0)).toBe(true);
  });

  test("false: B starts as A does, by its own fan-in", async () => {
    const peft = await wide({ initLoraWeights: false });
    const [a, b] = [valuesOf(peft, layer0("lora_A")), valuesOf(peft, layer0("lora_B"))];
    const limits = [1 / Math.sqrt(32), 1 / Math.sqrt(r)];
    for (const [i, values] of [a, b].entries())
      expect(distance(values, (x) => (x + limits[i]!) / (2 * limits[i]!))).toBeLessThan(bound(values.length));
  });

  test("an embedding: A zero, B normal with deviation 1", async () => {
    const embedding = (options: LoraConfigOptions) =>
      adapted({ r, targetModules: ["embed_tokens"], ...options });
    const peft = await embedding({});
    const [a, b] = ["A", "B"].map((part) => valuesOf(peft, `model.embed_tokens.lora_embedding_${part}`));
    expect(a!.every((value) => value === 0)).toBe(true);
    expect(distance(b!, normalDistribution)).toBeLessThan(bound(b!.length));
    const started = await embedding({ initLoraWeights: false });
    const both = ["A", "B"].map((part) => valuesOf(started, `model.embed_tokens.lora_embedding_${part}`));
    for (const values of both)
      expect(distance(values, normalDistribution)).toBeLessThan(bound(values.length));
  });

  test("the same seed gives the same weights; another seed, or layer, others", async () => {
    const [first, again, other] = [await wide({}), await wide({}), await wide({}, 2)];
    const a = valuesOf(first, layer0("lora_A"));
    expect(valuesOf(again, layer0("lora_A"))).toEqual(a);
    const different = [
      valuesOf(other, layer0("lora_A")),
      valuesOf(first, layer0("lora_A").replace("layers.0", "layers.1")),
    ];
    for (const values of different) {
      const correlation = a.reduce((sum, x, i) => sum + x * values[i]!, 0) / a.length / deviation(a) ** 2;
      expect(Math.abs(correlation)).toBeLessThan(6 / Math.sqrt(a.length));
    }
  });
});

describe("what cannot be adapted", () => {
  const attempt = async (options: LoraConfigOptions, base = "llama-qv") => {
    const model = await referenceCase(base).loadBase();
    const before = [...model.namedModules()].map(([path, module]) => [path, module] as const);
    let error: unknown;
    try {
      getPeftModel(model, new LoraConfig(options));
    } catch (caught) {
      error = caught;
    }
    expect([...model.namedModules()]).toEqual(before);
    expect(
      [...model.namedParameters()].every(([path, { name, trainable }]) => name === path && !trainable),
    ).toBe(true);
    return error as AdapterError;
  };

  test("settings that are not implemented are all named, and nothing is changed", async () => {
    const error = await attempt({
      targetModules: ["q_proj"],
      useDora: true,
      trainableTokenIndices: [1],
      bias: "all",
    });
    expect(error).toBeInstanceOf(AdapterError);
    expect(error).toMatchObject({
      code: "unsupported-adapter",
      details: { fields: ["useDora", "trainableTokenIndices"] },
    });
    expect(error.message).toMatch(/DoRA.*\n.*rows of an embedding/);
  });

  test("a block cannot be trained as a whole", async () => {
    const error = await attempt({ targetModules: ["up_proj"], modulesToSave: ["self_attn"] });
    expect(error).toMatchObject({
      code: "cannot-save-module",
      details: { path: "model.layers.0.self_attn" },
    });
    expect(error.message).toMatch(
      /"model\.layers\.0\.self_attn" is a LlamaAttention.*Name the layers inside it/,
    );
  });

  test("a name that matches nothing", async () => {
    const error = await attempt({ targetModules: ["q_porj"] });
    expect(error.name).toBe("SelectionError");
    expect(error.message).toContain("q_proj");
  });

  test("a second adapter is refused, and the first one stays", async () => {
    const peft = await adapted({ r: 2, targetModules: ["q_proj"] });
    const keys = [...peft.trainableParameters().keys()];
    expect(() => getPeftModel(peft.baseModel, new LoraConfig({ targetModules: ["v_proj"] }))).toThrow(
      /has an adapter already \(in "model\.layers\.0\.self_attn\.q_proj"\).*Load the model again/,
    );
    expect([...peft.trainableParameters().keys()]).toEqual(keys);
  });
});
