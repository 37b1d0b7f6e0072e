import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  assertResumable,
  type JsonValue,
  parseTrainerState,
  serializeTrainerState,
  type TrainerState,
} from "../../src/training/state.ts";
import { readVectors } from "./vectors.ts";

const state: TrainerState = {
  step: 30,
  totalSteps: 60,
  epoch: 1,
  batchInEpoch: 10,
  batchesPerEpoch: 20,
  totalEpochs: 3,
  batchSize: 4,
  seed: 42,
  tokensSeen: 12345,
  best: { loss: 1.25, step: 20, checkpoint: "checkpoint-20" },
  evaluationsWithoutImprovement: 1,
  history: [{ step: 10, epoch: 0.5, loss: 2.5, learning_rate: 1e-4, grad_norm: 0.5 }],
  fingerprint: { learningRate: 1e-4, adapter: { r: 8 } },
  versions: { graftjs: "0.1.0" },
};

// biome-ignore lint/suspicious/noExplicitAny: tests break the file in ways its type forbids
const edit = (change: (file: any) => void) => {
  const file = JSON.parse(serializeTrainerState(state));
  change(file);
  return JSON.stringify(file);
};

describe("trainer state", () => {
  const nat = fc.nat();
  const key = fc.string().filter((name) => name !== "__proto__");
  const finiteOrNot = fc.double();
  const sum = fc.double({ min: 0 });
  const anyState: fc.Arbitrary<TrainerState> = fc.record(
    {
      step: nat,
      totalSteps: nat,
      epoch: nat,
      batchInEpoch: nat,
      batchesPerEpoch: nat,
      totalEpochs: fc.double({ min: 0, max: 1e6, noNaN: true }),
      batchSize: fc.integer({ min: 1 }),
      seed: fc.integer(),
      tokensSeen: nat,
      best: fc.record(
        { loss: finiteOrNot, step: nat, checkpoint: fc.string() },
        { requiredKeys: ["loss", "step"] },
      ),
      evaluationsWithoutImprovement: nat,
      checkedLayers: fc.array(
        fc.record({
          path: fc.string(),
          quantized: fc.boolean(),
          rounded: fc.record({ forward: fc.boolean(), backward: fc.boolean() }),
          outliers: fc.array(nat),
        }),
      ),
      unlogged: fc.record({
        steps: nat,
        loss: sum,
        gradNorm: sum,
        learningRate: sum,
        tokens: nat,
        seconds: fc.double({ min: 0, max: 1e6, noNaN: true }),
      }),
      history: fc.array(
        fc.record({
          step: nat,
          epoch: fc.double({ min: 0, max: 99, noNaN: true }),
          loss: finiteOrNot,
          eval_loss: finiteOrNot,
        }),
      ),
      fingerprint: fc.dictionary(key, fc.jsonValue() as fc.Arbitrary<JsonValue>),
      versions: fc.dictionary(key, fc.string()),
    },
    { noNullPrototype: true },
  );

  it("keeps every key inside a fingerprint, also __proto__", () => {
    const fingerprint = JSON.parse('{"option": {"__proto__": null, "list": [{"__proto__": 1}]}}');
    const text = serializeTrainerState({ ...state, fingerprint });
    expect(text).toContain("__proto__");
    expect(serializeTrainerState(parseTrainerState(text, "trainer_state.json"))).toBe(text);
  });

  it("survives writing and reading, bit for bit", () => {
    fc.assert(
      fc.property(anyState, (any) => {
        const plain = JSON.parse(JSON.stringify(any.fingerprint)) as Record<string, JsonValue>;
        const before = { ...any, fingerprint: plain };
        const after = parseTrainerState(serializeTrainerState(before), "trainer_state.json");
        // JSON has no -0; nothing in a state depends on it
        expect(JSON.stringify(after.history)).toBe(JSON.stringify(before.history));
        expect(serializeTrainerState(after)).toBe(serializeTrainerState(before));
        expect({ ...after, history: [], best: undefined }).toEqual({
          ...before,
          history: [],
          best: undefined,
        });
        expect(Object.is(after.best?.loss, before.best?.loss) || before.best!.loss === 0).toBe(true);
      }),
    );
  });

  it("needs no evaluation to have happened", () => {
    const { best: _, ...unevaluated } = state;
    expect(parseTrainerState(serializeTrainerState(unevaluated), "s.json")).toEqual(unevaluated);
  });

  it("uses no top-level field that transformers' TrainerState does not have", () => {
    const known = Object.keys(readVectors<Record<string, unknown>>("trainer-state.json"));
    const own = Object.keys(JSON.parse(serializeTrainerState(state)));
    expect(own.filter((field) => !known.includes(field))).toEqual([]);
  });

  it("tells transformers how much of the data was seen", () => {
    expect(JSON.parse(serializeTrainerState(state))).toMatchObject({
      epoch: 1.5,
      global_step: 30,
      max_steps: 60,
    });
  });

  it.each([
    ["{", "s.json is damaged: it is not JSON"],
    ["[]", "s.json is damaged: "],
    ["null", "s.json is damaged: the whole: "],
    [JSON.stringify(readVectors("trainer-state.json")), "s.json was not written by Graft"],
    [
      edit((file) => {
        file.stateful_callbacks.Graft.args.format_version = 2;
      }),
      "s.json has format version 2; this version of Graft reads up to 1. Update graftjs.",
    ],
  ])("rejects %.20s", (text, message) => {
    expect(() => parseTrainerState(text, "s.json")).toThrow(message);
  });

  it("lists every damaged field", () => {
    const text = edit((file) => {
      file.global_step = -1;
      file.log_history[0].loss = "high";
      delete file.stateful_callbacks.Graft.attributes.epoch;
    });
    expect(() => parseTrainerState(text, "s.json")).toThrow(
      /^s\.json is damaged: global_step: .+; log_history\.0\.loss: .+; stateful_callbacks\.Graft\.attributes\.epoch: .+ Resume from an earlier checkpoint/,
    );
  });
});

describe("assertResumable", () => {
  it("accepts equal settings in any order of keys", () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue() as fc.Arbitrary<JsonValue>), (fingerprint) => {
        const reversed = (value: JsonValue): JsonValue =>
          Array.isArray(value)
            ? value.map(reversed)
            : typeof value === "object" && value !== null
              ? Object.fromEntries(
                  Object.entries(value)
                    .reverse()
                    .map(([k, v]) => [k, reversed(v)]),
                )
              : value;
        assertResumable(fingerprint, reversed(fingerprint) as Record<string, JsonValue>);
      }),
    );
  });

  it("names every setting that changed, with both values", () => {
    expect(() =>
      assertResumable(
        { learningRate: 1e-4, targets: ["q_proj"], seed: 1 },
        { learningRate: 3e-4, targets: ["q_proj", "v_proj"], seed: 1, maxLength: 128 },
      ),
    ).toThrow(
      'Cannot resume: learningRate was 0.0001, is now 0.0003; maxLength was not set, is now 128; targets was ["q_proj"], ' +
        'is now ["q_proj","v_proj"]. Use the settings of the saved run, or start a new run from its adapter.',
    );
  });
});
