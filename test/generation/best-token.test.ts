import { expect, test } from "vitest";
import { chosenTokens } from "../../src/generation/decoding.ts";
import { scored } from "../../src/generation/program.ts";
import { argmax } from "../../src/generation/sampler.ts";
import { input, op, symbol } from "../../src/graph/index.ts";
import { tensor } from "../../src/tensor/index.ts";
import { sharedEngine } from "../support/run-graph.ts";

const engine = sharedEngine({ threads: 1 });

test("the engine takes the token that argmax takes, and says where scores are not finite", async () => {
  const logits = op.add(input("x", "float32", [symbol("batch"), 5]), 0);
  const session = await engine().createSession(scored(logits));
  const choose = async (rows: number[][]) =>
    chosenTokens(
      (await session.run({ x: tensor("float32", [rows.length, 5], Float32Array.from(rows.flat())) })).outputs,
    );
  const rows = [
    [1, 3, 3, 2, 3], // of equal ones the first
    [-1, -2, -3, -4, -1],
    [0, 0, 0, 0, 0],
    [-5, -4, -3, -2, -1],
    [1e-30, 2e-30, -1e30, 3e-30, 0],
  ];
  const tokens = await choose(rows);
  expect(tokens).toEqual(rows.map((row) => argmax(Float32Array.from(row))));
  for (const odd of [Number.NaN, Infinity, -Infinity])
    expect(
      await choose([
        [0, 0, 1, 0, 0],
        [0, odd, 0, 0, 0],
      ]),
    ).toBeUndefined();
  await session.dispose();
});
