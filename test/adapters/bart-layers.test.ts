import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { getPeftModel, LoraConfig, moduleTreeOf, PeftModel } from "../../src/adapters/index.ts";
import { AdapterError } from "../../src/errors.ts";
import {
  buildSeq2SeqLM,
  type Seq2SeqLM,
  seq2seqFeeds,
  seq2seqInputs,
  seq2seqLoss,
} from "../../src/models/index.ts";
import { runSelectionVector, type SelectionVectorFile } from "../conformance/selection-vectors.ts";
import { findSkeleton, readVectors } from "../conformance/vector-files.ts";
import { int64, Seq2SeqCase } from "../models/seq2seq-case.ts";
import { sharedEngine } from "../support/run-graph.ts";
import { adapterPath, expectRecorded, expectSavedAsRecorded, layerCases } from "./layer-vectors.ts";

const models = fileURLToPath(new URL("../vectors/seq2seq", import.meta.url));
const reference = (base: string): Seq2SeqCase => new Seq2SeqCase(join(models, base));
const engine = sharedEngine({ threads: 1 });

describe.each(layerCases.bart.map((recorded) => [recorded.name, recorded] as const))("%s", (_, recorded) => {
  const { base, decoderInputIds } = recorded;
  const loadBase = () => reference(base).loadBase();
  const batch = { ...reference(base).batch(), decoderInputIds: int64(decoderInputIds) };

  test("selects PEFT's keys and counts its parameters", async () => {
    const peft = getPeftModel(
      await loadBase(),
      LoraConfig.fromJSON({ ...recorded.settings, peft_type: "LORA" }),
    );
    expect([...peft.stateDict().keys()].sort()).toEqual(recorded.adapterKeys);
    const lines: string[] = [];
    peft.printTrainableParameters((line) => lines.push(line));
    expect(lines).toEqual([recorded.printed]);
  });

  test("logits, loss and every gradient are PEFT's", async () => {
    const peft = await PeftModel.fromPretrained(await loadBase(), adapterPath(recorded), {
      isTrainable: true,
    });
    const model = peft.baseModel;
    const inputs = seq2seqInputs();
    const encoderHidden = model.encode(inputs);
    const output = model.logits(model.decode({ ...inputs, encoderHidden }).hidden);
    const graph = { output, loss: seq2seqLoss(model) };
    const { loss } = await expectRecorded(peft, recorded, graph, engine(), seq2seqFeeds(model, batch));
    expect(Math.abs(loss / recorded.loss - 1)).toBeLessThan(1e-5);
  });

  test("loading and saving gives PEFT's own files, frozen or not", async () => {
    for (const isTrainable of [true, false])
      await expectSavedAsRecorded(
        await PeftModel.fromPretrained(await loadBase(), adapterPath(recorded), { isTrainable }),
        recorded,
      );
  });
});

test.each(
  layerCases.refused.flatMap((refused) =>
    refused.base === undefined ? [] : [[refused.settings, refused] as const],
  ),
)("%j is refused as PEFT refuses it, and the model stays as it was", async (settings, refused) => {
  const model = await reference(refused.base!).loadBase();
  const before = [...model.namedModules()];
  let error: unknown;
  try {
    getPeftModel(model, LoraConfig.fromJSON({ ...settings, peft_type: "LORA" }));
  } catch (caught) {
    error = caught;
  }
  expect([...model.namedModules()]).toEqual(before);
  expect(error).toMatchObject({ code: "unsupported-module-type" });
  // PEFT's adapter of positions fails when the model is called, with whatever went wrong there.
  if (refused.stage === "forward") {
    expect(error).toBeInstanceOf(AdapterError);
    expect((error as Error).message).toMatch(/embed_positions".*looks up places.*modulesToSave/);
  } else expect((error as Error).message).toMatch(/LayerNorm cannot carry LoRA/);
});

describe("the tree of bart-base", () => {
  const { skeleton: name, vectors } = readVectors(
    fileURLToPath(new URL("../vectors/selection/bart-base.json.gz", import.meta.url)),
  ) as SelectionVectorFile;
  const skeleton = findSkeleton(name, import.meta.filename);
  const config = {
    model_type: "bart",
    vocab_size: 50265,
    d_model: 768,
    encoder_layers: 6,
    encoder_attention_heads: 12,
    encoder_ffn_dim: 3072,
    decoder_layers: 6,
    decoder_attention_heads: 12,
    decoder_ffn_dim: 3072,
  };
  const origin = { name, config, generationConfig: undefined, checkpoint: undefined, warnings: [] };
  const tree = moduleTreeOf(
    Object.assign(buildSeq2SeqLM(config, "config.json").model, { origin }) as Seq2SeqLM,
  );

  test("is transformers'", () => {
    const { stateDict, config: fields, ...rest } = skeleton;
    const { stateDict: ownTensors, config: ownFields, ...own } = tree;
    expect(own).toEqual(rest);
    expect(ownTensors).toEqual(stateDict!.map(([path, shape]) => [path, shape]));
    expect(ownTensors).toHaveLength(263);
    expect(ownFields).toMatchObject({
      modelType: fields.modelType,
      tieWordEmbeddings: fields.tieWordEmbeddings,
    });
  });

  test("gives every recorded selection", () => {
    expect(vectors.length).toBeGreaterThan(50);
    for (const vector of vectors)
      expect({ id: vector.id, config: vector.config, mismatch: runSelectionVector(tree, vector) }).toEqual({
        id: vector.id,
        config: vector.config,
        mismatch: undefined,
      });
  });
});
