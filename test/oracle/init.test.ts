import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import type { LoraConfigOptions } from "../../src/adapters/config-options.ts";
import { LoraConfig, toPython } from "../../src/adapters/index.ts";
import { Tuple } from "../../src/selection/index.ts";
import { graft, scratch } from "../cli/support.ts";

const script = fileURLToPath(new URL("../../scripts/check_init.py", import.meta.url));

function python<T>(args: readonly string[], input = ""): T {
  const run = spawnSync(process.env["GRAFT_PYTHON"]!, [script, ...args], {
    input,
    encoding: "utf8",
    env: { ...process.env, HF_HUB_OFFLINE: "1" },
  });
  if (run.status !== 0) throw new Error(run.stderr);
  return JSON.parse(run.stdout) as T;
}

type Loaded = {
  problems: string[];
  difference: number;
  targets: string[];
  largest: Record<string, number>;
};

test("PEFT loads what graft init writes for a model whose type is not built here; it changes nothing yet", async () => {
  const folder = scratch();
  const model = join(folder, "bert");
  python(["make", model]);
  const cases = {
    list: ["--target-modules", "query,value", "--r", "4"],
    layers: ["--target-modules", "dense", "--layers-to-transform", "2", "--init-lora-weights", "gaussian"],
    head: ["--target-modules", "all-linear", "--task-type", "SEQ_CLS", "--bias", "lora_only"],
    embedding: ["--target-modules", "word_embeddings,query"],
  };
  for (const [name, flags] of Object.entries(cases)) {
    const { code, stderr } = await graft(["init", model, ...flags, "--output", join(folder, name)]);
    expect(stderr).toContain("inferred");
    expect(code).toBe(0);
  }
  const names = Object.keys(cases);
  const loaded = python<Loaded[]>(["load", model, ...names.map((name) => join(folder, name))]);
  const targets = Object.fromEntries(loaded.map(({ targets }, i) => [names[i], targets.length]));
  expect(targets).toEqual({ list: 6, layers: 3, head: 19, embedding: 4 });
  for (const { problems, difference } of loaded) {
    expect(problems).toEqual([]);
    expect(difference).toBe(0);
  }
  // U(-1/√in, 1/√in): 16 inputs, 64 draws
  for (const largest of Object.values(loaded[0]!.largest)) {
    expect(largest).toBeGreaterThan(0.2);
    expect(largest).toBeLessThanOrEqual(0.25);
  }
});

const configs: LoraConfigOptions[] = [
  {},
  {
    r: 16,
    loraAlpha: 32,
    targetModules: ["v_proj", "q_proj"],
    layersToTransform: [4, 5],
    layersPattern: "layers",
  },
  { targetModules: String.raw`.*\.(?:encoder\.layers\.[45])\..*"q"`, loraDropout: 0.05 },
  { targetModules: "naïve\\d🙂\n", excludeModules: "ends with \\" },
  {
    targetModules: new Tuple(["q_proj"]),
    rankPattern: new Map([
      ["2", 4],
      ["1", 8],
    ]),
    alphaPattern: { "^a\\.b": 3 },
  },
  {
    targetModules: "all-linear",
    initLoraWeights: "eva",
    evaConfig: { rho: 3 },
    bias: "all",
    useRslora: true,
  },
  { targetParameters: ["experts.gate_up_proj"], trainableTokenIndices: [1, 2], modulesToSave: ["score"] },
  {
    trainableTokenIndices: { embed_tokens: [3] },
    layerReplication: [
      [0, 4],
      [2, 6],
    ],
    taskType: "CAUSAL_LM",
  },
];

test("a snippet makes the LoraConfig that the file says", () => {
  const folder = scratch();
  const asked = configs.map((options, i) => {
    const config = new LoraConfig(options);
    const adapter = join(folder, String(i));
    mkdirSync(adapter);
    writeFileSync(join(adapter, "adapter_config.json"), config.stringify());
    return { code: toPython(config, { className: "LlamaForCausalLM", location: "x" }), adapter };
  });
  const results = python<{ different: object }[]>(["snippets"], JSON.stringify(asked));
  // a tuple becomes a list in a file
  expect(results.map(({ different }) => Object.keys(different))).toEqual(
    configs.map((options) => (options.targetModules instanceof Tuple ? ["target_modules"] : [])),
  );
});
