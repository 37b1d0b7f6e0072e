import type { VersionDifferences } from "./differences.ts";
import { currentRelease } from "./version.ts";

/** Says in words what differs: who wrote the file, what its rules would choose, which changes make the difference. */
export function describeDifferences(
  {
    version,
    wrote,
    rulesOf,
    added,
    removed,
    changedRanks,
    thenFails,
    nowFails,
    changes,
  }: Omit<VersionDifferences, "message">,
  then: number,
  now: number,
): string {
  const rules = version === null ? `The rules of ${rulesOf}` : "Its rules";
  const parts = [
    ...list(removed, "not chosen by 0.21"),
    ...list(added, "chosen by 0.21 only"),
    ...list(
      changedRanks.map(({ name }) => name),
      "with another rank or alpha",
    ),
  ];
  const outcome =
    thenFails !== null
      ? `${rules} would fail: ${thenFails}`
      : `${rules} choose ${then} target${then === 1 ? "" : "s"}, those of ${currentRelease} ${
          nowFails === null ? now : "none"
        }: ${parts.join("; ")}.${nowFails === null ? "" : ` ${currentRelease} fails: ${nowFails}`}`;
  const because = changes.map(({ since, what, reference }) => ` ${since}: ${what} (${reference})`).join("");
  return `The configuration was written by ${wrote}. ${outcome} Graft follows ${currentRelease}. Since then:${because}`;
}

const list = (names: readonly string[], what: string): string[] =>
  names.length === 0
    ? []
    : [`${names.length} ${what} (${names.slice(0, 3).join(", ")}${names.length > 3 ? ", …" : ""})`];
