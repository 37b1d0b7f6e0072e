import { GraftError } from "../../../errors.ts";
import { matchesTail, type PatternLookup } from "../../peft/patterns.ts";
import { quoteEntry } from "../../peft/reason.ts";
import { partsOf } from "../../peft/selection.ts";
import { leafOf } from "../../python.ts";
import { compileWith, longestTried } from "../near.ts";
import { countOf, type LintContext, nearestNote } from "./context.ts";

/** Keys of `rankPattern` and `alphaPattern` that give no target its value. */
export function lintPatternTables(context: LintContext): void {
  if (context.selection === undefined) return;
  const { injection, preparation } = partsOf(context.selection);
  const { rankPattern, alphaPattern } = preparation.config;
  lintTable(context, "rankPattern", "rank", injection.ranks, rankPattern);
  lintTable(context, "alphaPattern", "alpha", injection.alphas, alphaPattern);
}

function lintTable(
  context: LintContext,
  option: "rankPattern" | "alphaPattern",
  word: "rank" | "alpha",
  lookup: PatternLookup,
  table: ReadonlyMap<string, number> | null,
): void {
  if (table === null || table.size === 0) return;
  const { patterns, steps } = context.preparation;
  const matches = (key: string, name: string): boolean => matchesTail(patterns, key, name, option);
  const dead: string[] = [];
  for (const key of table.keys()) {
    if (lookup.used.has(key)) continue;
    const shadowed = context.targets.find((name) => matches(key, name));
    if (shadowed === undefined) dead.push(key);
    else
      context.warn(
        `${word}-pattern-shadowed`,
        `${option}: ${quoteEntry(key)} has no effect, because an earlier key matches all of its targets, such as ` +
          `${JSON.stringify(lookup.keyFor(shadowed))} "${shadowed}". Put it first.`,
        { key, by: lookup.keyFor(shadowed) },
      );
  }
  const code = `${word}-pattern-unmatched`;
  if (dead.length > 0) {
    const told = dead.map(
      (key) => `${quoteEntry(key)} matches no targeted module${whyDead(context, key, matches)}`,
    );
    context.warn(code, `${option}: ${told.join("; ")}.`, { keys: dead });
    return;
  }
  // PEFT warns of keys that match parameters only, although they have effect
  const ofParameters = [...table.keys()].filter((key) => !context.targets.some((name) => matches(key, name)));
  if (ofParameters.length > 0 && context.selection!.warnings.some((warning) => warning.code === code))
    context.warn(
      code,
      `${option}: PEFT will warn that ${ofParameters.map((key) => quoteEntry(key)).join(", ")} match no targeted module, but they do give ` +
        `target parameters their ${word}${steps.moved !== null && steps.moved.size > 0 ? " (PEFT itself adds such keys for fused experts)" : ""}.`,
      { keys: ofParameters, harmless: true },
    );
}

type Matches = (key: string, name: string) => boolean;

function whyDead(context: LintContext, key: string, matches: Matches): string {
  const { targets, names } = context;
  const reaches = (changed: string): number => {
    try {
      return targets.filter((name) => matches(changed, name)).length;
    } catch (error) {
      if (error instanceof GraftError) return 0;
      throw error;
    }
  };
  if (key.startsWith("^") && reaches(key.slice(1)) > 0)
    return `: "^" stands for the start of the whole name, such as "${targets.find((name) => matches(key.slice(1), name))}"; leave it out`;
  const plain = key
    .replace(/^\^?base_model(\.|\\\.)model(\.|\\\.)/, "")
    .replace(/(\.|\\\.)(weight|lora_[AB].*)$/, "");
  if (plain !== key && reaches(plain) > 0)
    return `; ${quoteEntry(plain)} would: keys are names of the model's own modules`;
  const others = names.filter((name) => matches(key, name));
  if (others.length > 0)
    return `; it matches ${countOf(others.length)} that ${others.length === 1 ? "is" : "are"} not targeted, such as "${others[0]}"`;
  const inside = key.length > longestTried ? undefined : compileWith(".*", key);
  const count = inside === undefined ? 0 : targets.filter((name) => inside.fullmatch(name) !== null).length;
  if (count > 0)
    return `; a key is a whole part of the name, or several: ".*${key}" would match ${countOf(count, "target")}`;
  if (!/^[\w.-]+$/.test(key)) return "";
  const known = new Set(targets.map(leafOf));
  return nearestNote(context.nearestTails(key, 2).filter((tail) => known.has(leafOf(tail))));
}
