import { expect, test } from "vitest";
import { dimAdd, input, op, symbol, type Value } from "../../src/graph/index.ts";
import {
  type DecoderKeyValues,
  type Seq2SeqLM,
  seq2seqFeeds,
  seq2seqInputs,
} from "../../src/models/index.ts";
import type { Session } from "../../src/runtime/index.ts";
import { type Tensor, tensor } from "../../src/tensor/index.ts";
import { maxAbsDifference } from "../support/close.ts";
import { sharedEngine } from "../support/run-graph.ts";
import { seq2seqCases } from "./seq2seq-case.ts";

const engine = sharedEngine({ threads: 1 });

type Decoded = { hidden: Value; present: DecoderKeyValues[] };

/** Logits, and every cached tensor under `<layer>.self|cross.key|value`, as outputs to feed back. */
const outputsOf = (
  model: Seq2SeqLM,
  { hidden, present }: Decoded,
  past?: readonly DecoderKeyValues[],
): Record<string, Value> => ({
  logits: model.logits(hidden),
  ...Object.fromEntries(
    present.flatMap(({ self, cross }, layer) => [
      [`next.${layer}.self.key`, past ? op.concat([past[layer]!.self.key, self.key], 2) : self.key],
      [`next.${layer}.self.value`, past ? op.concat([past[layer]!.self.value, self.value], 2) : self.value],
      [`next.${layer}.cross.key`, cross.key],
      [`next.${layer}.cross.value`, cross.value],
    ]),
  ),
});

/** The first step encodes; the later ones know the source from their caches alone. */
async function sessionsOf(model: Seq2SeqLM): Promise<[first: Session, next: Session]> {
  const inputs = seq2seqInputs();
  const first = model.decode({ ...inputs, encoderHidden: model.encode(inputs) });
  const [batch, source, past] = [symbol("batch"), symbol("source"), symbol("past")];
  const { layers, heads, headDim } = model.decoderCacheLayout;
  const cached = (name: string, tokens: typeof past): { key: Value; value: Value } => ({
    key: input(`${name}.key`, "float32", [batch, heads, tokens, headDim]),
    value: input(`${name}.value`, "float32", [batch, heads, tokens, headDim]),
  });
  const caches = Array.from({ length: layers }, (_, layer) => ({
    self: cached(`${layer}.self`, past),
    cross: cached(`${layer}.cross`, source),
  }));
  const next = model.decode({
    decoderInputIds: input("decoder_input_ids", "int64", [batch, 1]),
    decoderAttentionMask: input("decoder_attention_mask", "float32", [batch, dimAdd(past, 1)]),
    attentionMask: inputs.attentionMask,
    past: caches,
  });
  return [
    await engine().createSession(outputsOf(model, first)),
    await engine().createSession(outputsOf(model, next, caches)),
  ];
}

/** Columns from `from` up to `to` of a matrix. */
const columns = ({ dtype, shape, data }: Tensor, from: number, to: number): Tensor => {
  const width = shape[1]!;
  const inside = (i: number): boolean => i % width >= from && i % width < to;
  const kept = (data as Float32Array).filter((_, i) => inside(i));
  return tensor(dtype, [shape[0]!, to - from], kept);
};

test.each(seq2seqCases().map((reference) => [reference.expected.name, reference] as const))(
  "%s: token by token with caches the logits are those of all tokens at once",
  async (_, reference) => {
    const model = await reference.loadBase();
    const batch = reference.batch();
    const feeds = seq2seqFeeds(model, batch);
    const recorded = (await reference.tensors()).get("logits_base")!;
    const [rows, target] = batch.labels.shape as [number, number];
    const sessions = await sessionsOf(model);
    let caches: Record<string, Tensor> = {};
    for (let place = 0; place < target; place++) {
      const session = sessions[place === 0 ? 0 : 1];
      const available: Record<string, Tensor> = {
        ...feeds,
        ...caches,
        decoder_input_ids: columns(feeds["decoder_input_ids"]!, place, place + 1),
        decoder_attention_mask: columns(feeds["decoder_attention_mask"]!, 0, place + 1),
      };
      const { outputs } = await session.run(
        Object.fromEntries(session.inputs.map(({ name }) => [name, available[name]!])),
      );
      caches = Object.fromEntries(
        Object.entries(outputs).map(([name, value]) => [name.replace("next.", ""), value]),
      );
      const logits = outputs["logits"]!.data as Float32Array;
      for (let row = 0; row < rows; row++) {
        const from = (row * target + place) * model.vocabSize;
        expect(
          maxAbsDifference(
            logits.subarray(row * model.vocabSize, (row + 1) * model.vocabSize),
            recorded.subarray(from, from + model.vocabSize),
          ),
        ).toBeLessThan(1e-4);
      }
    }
    await Promise.all(sessions.map((session) => session.dispose()));
  },
);
