import { nearest, RegexError } from "../../errors.ts";
import { leafOf } from "../python.ts";
import { compileEntry, type Entry } from "./entry.ts";
import type { EntryOutcome, GroupOutcome, Model } from "./group.ts";
import type { Report } from "./layers.ts";
import { quote } from "./problems.ts";

/** Says what entries of a group did not do, or did besides. */
export function reportEntries({ entries }: GroupOutcome, model: Model, report: Report): void {
  for (const outcome of entries) {
    if (!outcome.entry.isNegative) reportPositive(outcome, model, report);
    else if (outcome.modules.length === 0 && !outcome.entry.isShared) reportNegative(outcome, model, report);
  }
}

function reportPositive(outcome: EntryOutcome, model: Model, { subject, problems, warnings }: Report): void {
  const { entry, matched, modules, unsupported, outside, saved } = outcome;
  const { text, option } = entry;
  const who = `${subject}${option}: the entry ${quote(text)}`;
  const warn = (code: string, message: string, details: Record<string, unknown> = {}): void =>
    void warnings.push({ code, message: `${who} ${message}`, details: { entry: text, ...details } });

  if (unsupported.length > 0) {
    const kinds = [...new Set(unsupported.map(({ className }) => className))];
    const details = { entry: text, modules: unsupported.map(({ name }) => name), kinds };
    if (unsupported.length === matched.length)
      problems.add(
        "unsupported-module",
        `${who} matches only modules that cannot carry LoRA: ${count(unsupported)} (${list(kinds)}).${insideHint(entry, model)}`,
        details,
      );
    else
      warn(
        "entry-unsupported-modules",
        `also matches ${count(unsupported)} that cannot carry LoRA (${list(kinds)}); left out.`,
        details,
      );
  }
  if (matched.length === 0)
    warn("entry-matched-nothing", `matches no module.${unmatchedHint(entry, model)}`, {
      nearest: nearestNames(entry.body, model),
    });
  else if (modules.length > 0 || unsupported.length === matched.length) return;
  else if (outside.length > 0)
    warn("entry-outside-layers", `matches only modules outside the layers, such as ${quote(outside[0]!)}.`);
  else if (saved.length > 0) warn("entry-saved", "matches only what modulesToSave trains as a whole.");
  else warn("entry-removed", "matches only modules that negative entries take away again.");
}

/** A negative entry that took nothing away. */
function reportNegative({ entry, matched }: EntryOutcome, model: Model, { subject, warnings }: Report): void {
  const { text, option } = entry;
  const hint =
    matched.length > 0
      ? ` What it matches is not taken anyway${insideHint(entry, model) && `;${insideHint(entry, model).toLowerCase()}`}.`
      : unmatchedHint(entry, model);
  warnings.push({
    code: "negative-removed-nothing",
    message:
      `${subject}${option}: the ${option === "excludeModules" ? "" : "negative "}entry ${quote(text)} takes nothing away.${hint}`.replace(
        /\.\.$/,
        ".",
      ),
    details: { entry: text, nearest: matched.length > 0 ? [] : nearestNames(entry.body, model) },
  });
}

/** An entry for what is inside of the containers that it names, if there is anything. */
function insideHint({ kind, body, isNegative }: Entry, { modules, canCarry }: Model): string {
  if (kind !== "name" && kind !== "glob") return "";
  const inside = `${body}.**`;
  const test = compileEntry({ text: inside, kind: "glob", isNegative: false, body: inside });
  if (typeof test !== "function" || !modules.some((module) => canCarry(module) && test(module.name)))
    return "";
  return ` For what is inside, write ${quote(`${isNegative ? "!" : ""}${inside}`)}.`;
}

function unmatchedHint(entry: Entry, model: Model): string {
  const { kind, body, isNegative } = entry;
  const sign = isNegative ? "!" : "";
  if (kind === "name" || kind === "all-linear") {
    const near = nearestNames(body, model);
    return near.length === 0 ? "" : ` Closest: ${near.map(quote).join(", ")}.`;
  }
  const other = kind === "glob" ? "regex" : "glob";
  const read = countMatches({ ...entry, kind: other }, model);
  if (read > 0) return ` Read as a ${other} it matches ${read}: write ${quote(`${sign}${other}:${body}`)}.`;
  if (kind === "regex" && /^(?!\.\*)/.test(body)) {
    const anywhere = `.*(?:${body})`;
    const wide = countMatches({ ...entry, body: anywhere }, model);
    if (wide > 0)
      return ` A regex must match whole names; ${quote(`${sign}${isPlain(body) ? `.*${body}` : anywhere}`)} matches ${wide}.`;
  }
  return "";
}

/** Whether `.*` can stand in front without brackets. */
const isPlain = (body: string): boolean => !body.includes("|") && !body.startsWith("^");

/** How many modules another reading of an entry matches; none where it takes too long. */
function countMatches(entry: Entry, { modules }: Model): number {
  try {
    const test = compileEntry(entry);
    return typeof test === "function" ? modules.filter(({ name }) => name !== "" && test(name)).length : 0;
  } catch (error) {
    if (error instanceof RegexError) return 0;
    throw error;
  }
}

/** The closest ends of names of as many parts as an entry has. */
function nearestNames(body: string, { modules }: Model): string[] {
  if (body.length > 200) return [];
  const parts = body.split(".").length;
  const ends = new Set<string>();
  for (const { name } of modules) {
    if (ends.size > 5000) break;
    ends.add(parts === 1 ? leafOf(name) : name.split(".").slice(-parts).join("."));
  }
  ends.delete("");
  return nearest(body, ends, 2).filter((name) => name !== body);
}

const count = ({ length }: { readonly length: number }): string =>
  length === 1 ? "1 module" : `${length} modules`;
const list = (kinds: readonly string[]): string =>
  kinds.slice(0, 5).join(", ") + (kinds.length > 5 ? ", …" : "");
