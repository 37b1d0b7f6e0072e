import { type Contestant, lossTolerance } from "./contestants.ts";
import type { Measurement } from "./measure.ts";
import type { Quantity } from "./quantities.ts";
import type { CaseResult } from "./results.ts";
import { type Spread, spread } from "./statistics.ts";

/** A contestant's values of a quantity over the rounds; undefined if it was not measured, or did other work. */
export function valuesOf(result: CaseResult, contestant: Contestant, quantity: Quantity): Spread | undefined {
  const runs = result.rounds.flatMap((round) => round[contestant] ?? []);
  if (runs.length === 0 || disagreement(result, contestant) !== undefined) return undefined;
  return spread(runs.map((run) => quantity.of(run, result.case.work)));
}

/**
 * How many times as good `own` is as `other`, each round's ratio apart: contestants of one round ran one after the other, on a
 * machine in the same state. Of times and memory it is other / own.
 */
export function advantage(
  result: CaseResult,
  quantity: Quantity,
  [own, other]: readonly [own: Contestant, other: Contestant],
): Spread | undefined {
  const ratios = perRound(result, quantity, [own, other]);
  return ratios && spread(ratios.map((ratio) => (quantity.better === "less" ? 1 / ratio : ratio)));
}

/** What `own` has of a quantity as a share of what `other` has, each round's apart. */
export function share(
  result: CaseResult,
  quantity: Quantity,
  pair: readonly [own: Contestant, other: Contestant],
): Spread | undefined {
  const ratios = perRound(result, quantity, pair);
  return ratios && spread(ratios);
}

function perRound(
  result: CaseResult,
  quantity: Quantity,
  [own, other]: readonly [Contestant, Contestant],
): number[] | undefined {
  if (disagreement(result, own) !== undefined || disagreement(result, other) !== undefined) return undefined;
  const { work } = result.case;
  const ratios = result.rounds.flatMap((round) => {
    const [a, b] = [round[own], round[other]];
    return a && b ? [quantity.of(a, work) / quantity.of(b, work)] : [];
  });
  return ratios.length > 0 ? ratios : undefined;
}

/** The largest difference between the losses of one step, relative, of a contestant and Graft; undefined in generation. */
export function lossDifference(a: Measurement, b: Measurement): number | undefined {
  if (!("losses" in a && "losses" in b)) return undefined;
  if (a.losses.length !== b.losses.length) return Infinity;
  return Math.max(...a.losses.map((loss, i) => Math.abs(loss / b.losses[i]! - 1)));
}

/**
 * Why a contestant's times must not be compared with Graft's: another number of trained parameters, or another loss in some
 * step. undefined if it did the same work.
 */
export function disagreement(result: CaseResult, contestant: Contestant): string | undefined {
  for (const round of result.rounds) {
    const [own, other] = [round.graft, round[contestant]];
    if (!own || !other || own === other) continue;
    if (
      "trainableParameters" in own &&
      "trainableParameters" in other &&
      own.trainableParameters !== other.trainableParameters
    )
      return `Graft trains ${own.trainableParameters} parameters, ${contestant} ${other.trainableParameters}`;
    const difference = lossDifference(own, other);
    if (difference !== undefined && !(difference <= lossTolerance[contestant]))
      return `the losses of Graft and ${contestant} differ by up to ${difference.toExponential(1)} of them`;
  }
  return undefined;
}
