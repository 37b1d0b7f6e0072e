/** Whatever is wanted, the synthesized configuration selects exactly that under PEFT's rules. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { selectTargets } from "../../../src/selection/index.ts";
import { synthesize } from "../../../src/selection/synthesize/index.ts";
import { adaptableNames, skeleton } from "./support.ts";

const skeletons = readdirSync(join(import.meta.dirname, "../../vectors/skeletons"))
  .filter((file) => file.endsWith(".json.gz"))
  .map((file) => file.replace(".json.gz", ""));

/** A multiple of the groups of every convolution here: PEFT takes no other ranks for them. */
const manyGroups = 1024;

const usual = { r: 8, alpha: 16 };

describe.each(skeletons)("%s", (name) => {
  const tree = skeleton(name);
  const names = adaptableNames(tree);
  const grouped = new Set(
    tree.modules.filter(({ extra }) => (extra?.groups ?? 1) > 1).map((module) => module.name),
  );
  const order = new Map(tree.modules.map((module, i) => [module.name, i]));
  const inOrder = (wanted: Iterable<string>): string[] =>
    [...wanted].sort((a, b) => order.get(a)! - order.get(b)!);

  const check = (wanted: readonly string[]): void => {
    const { config } = synthesize(tree, wanted, { base: { r: manyGroups } });
    const selection = selectTargets(tree, config);
    expect(
      selection.targets.map((target) => target.name),
      JSON.stringify(config),
    ).toEqual(inOrder(wanted));
  };

  test("any few modules", () => {
    fc.assert(
      fc.property(fc.subarray(names, { minLength: 1, maxLength: Math.min(names.length, 40) }), check),
      { numRuns: 12 },
    );
  });

  test("any part of all modules", () => {
    fc.assert(fc.property(fc.subarray(names, { minLength: 1 }), check), { numRuns: 6 });
  });

  test("leaves in some layers, and in others other leaves", () => {
    const leaves = [...new Set(names.map((own) => own.slice(own.lastIndexOf(".") + 1)))];
    const rule = fc.record({
      leaves: fc.subarray(leaves, { minLength: 1, maxLength: Math.min(3, leaves.length) }),
      modulus: fc.constantFrom(1, 1, 2, 3, 4),
      from: fc.nat(6),
      inside: fc.constantFrom("", "encoder", "decoder", "visual", "vision", "attn", "mlp", "layer.1"),
    });
    fc.assert(
      fc.property(fc.array(rule, { minLength: 1, maxLength: 3 }), (rules) => {
        const wanted = names.filter((own) =>
          rules.some((given) => {
            const number = Number(/\.(\d+)\./.exec(own)?.[1] ?? -1);
            return (
              given.leaves.some((leaf) => own.endsWith(leaf)) &&
              own.includes(given.inside) &&
              (number < 0 || (number >= given.from && number % given.modulus === 0))
            );
          }),
        );
        fc.pre(wanted.length > 0);
        check(wanted);
      }),
      { numRuns: 15 },
    );
  });

  test("any rank and alpha for each module", () => {
    const pair = fc.oneof(
      { weight: 3, arbitrary: fc.constant(usual) },
      fc.record({ r: fc.constantFrom(4, 8, 12, 16), alpha: fc.constantFrom(8, 16, 24) }),
    );
    fc.assert(
      fc.property(
        fc
          .subarray(names, { minLength: 1, maxLength: Math.min(names.length, 60) })
          .chain((wanted) =>
            fc.tuple(
              fc.constant(wanted),
              fc.array(pair, { minLength: wanted.length, maxLength: wanted.length }),
            ),
          ),
        ([wanted, pairs]) => {
          const values = new Map(
            wanted.map((own, i) => [own, grouped.has(own) ? { r: manyGroups, alpha: 16 } : pairs[i]!]),
          );
          const { config } = synthesize(tree, values);
          const found = selectTargets(tree, config).targets.map((target) => [
            target.name,
            { r: target.r, alpha: target.alpha },
          ]);
          expect(found, JSON.stringify(config)).toEqual(inOrder(wanted).map((own) => [own, values.get(own)]));
        },
      ),
      { numRuns: 10 },
    );
  });
});
