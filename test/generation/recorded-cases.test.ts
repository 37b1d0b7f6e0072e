import { afterAll, describe, expect, test } from "vitest";
import { sharedEngine } from "../support/run-graph.ts";
import { Decoders, recordedCases } from "./recorded-case.ts";

const engine = sharedEngine({ threads: 1 });
const decoders = new Decoders(engine);
afterAll(() => decoders.dispose());

const cases = recordedCases();
const checkpoints = [...new Set(cases.map(({ kind, checkpoint }) => `${kind}/${checkpoint}`))];

describe.each(checkpoints)("%s", (name) => {
  const own = cases.filter(({ kind, checkpoint }) => `${kind}/${checkpoint}` === name);
  test.each(own.map((recorded) => [JSON.stringify(recorded.settings), recorded] as const))(
    "%s",
    async (_, recorded) => {
      const texts = (await decoders.generate(recorded)).flat();
      expect(texts.map(({ tokens }) => tokens)).toEqual(recorded.sequences);
      for (const [i, score] of (recorded.scores ?? []).entries())
        expect(Math.abs(texts[i]!.score! - score)).toBeLessThan(1e-4 * Math.max(1, Math.abs(score)));
    },
  );
});

test("the cases cover every way of beam search, on every kind of model", () => {
  const seen = new Set(
    cases.flatMap(({ kind, settings }) =>
      ["num_beams", "length_penalty", "early_stopping", "num_return_sequences"].flatMap((name) =>
        settings[name] === undefined ? [] : [`${kind} ${name} ${String(settings[name])}`],
      ),
    ),
  );
  for (const kind of ["seq2seq", "florence2", "models"])
    for (const setting of [
      ...[2, 3, 4, 5].map((beams) => `num_beams ${beams}`),
      ...[0.5, 1, 2, -1].map((penalty) => `length_penalty ${penalty}`),
      ...["false", "true", "never"].map((early) => `early_stopping ${early}`),
      "num_return_sequences 2",
    ])
      expect(seen).toContain(`${kind} ${setting}`);
  expect(cases.filter(({ adapter }) => adapter).length).toBeGreaterThan(50);
  expect(cases.filter(({ prompts }) => prompts.length > 1).length).toBeGreaterThan(50);
});
