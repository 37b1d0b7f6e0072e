import { partsOf, type Selection } from "../peft/selection.ts";
import { Tails } from "../peft/tails.ts";
import { leafOf } from "../python.ts";
import type { CompiledLike } from "./compiled.ts";

/** An entry of a configuration that takes modules or parameters. */
export type TakingEntry = {
  readonly entry: string;
  readonly option: "targetModules" | "targetParameters";
  /** Of a regex or "all-linear": the last part of the names that this row counts. */
  readonly part?: string;
  /** Of a parameter: the targets of `targetModules` that became it, in models with stacked experts. */
  readonly from?: readonly string[];
  /** Of a compiled selection of several groups: number of the group. */
  readonly group?: number;
};

/** Which entry took which target; entries that took nothing have no names. */
export type Attribution = { readonly by: TakingEntry; readonly names: readonly string[] }[];

/** By PEFT's rules: of several entries that match a name, the first. */
export function attributeSelection(selection: Selection): Attribution {
  const { config, steps } = partsOf(selection).preparation;
  const rows = new Map<string, { by: TakingEntry; names: string[] }>();
  const row = (by: TakingEntry): string[] => {
    const key = JSON.stringify([by.option, by.entry, by.part]);
    let known = rows.get(key);
    if (known === undefined) {
      known = { by, names: [] };
      rows.set(key, known);
    }
    return known.names;
  };
  const given = steps.given ?? (steps.isDefault ? (steps.condensed ?? config.targetModules) : null);
  const tails = given === null || typeof given === "string" ? undefined : new Tails(given);
  if (tails !== undefined)
    for (const entry of given as Iterable<string>)
      if (!steps.moved?.has(entry)) row({ entry, option: "targetModules" });
  const byEntry = new Map<string, string[]>();
  for (const { name, reason } of selection.targets) {
    const isWhole = typeof given === "string" && reason.rule !== "tied";
    const entry = isWhole
      ? given
      : reason.rule === "tied"
        ? `tied to ${reason.entry}`
        : (tails?.find(name) ?? reason.entry);
    const part = isWhole ? leafOf(name) : "";
    const key = isWhole ? part : entry;
    let names = byEntry.get(key);
    if (names === undefined) {
      names = row({ entry, option: "targetModules", ...(isWhole ? { part } : {}) });
      byEntry.set(key, names);
    }
    names.push(name);
  }
  for (const entry of config.targetParameters ?? []) {
    const from = [...(steps.moved ?? [])]
      .filter(([, parameter]) => parameter === entry)
      .map(([target]) => target);
    row({ entry, option: "targetParameters", ...(from.length === 0 ? {} : { from }) });
  }
  for (const { name, reason } of selection.targetParameters)
    row({ entry: reason.entry, option: "targetParameters" }).push(name);
  return [...rows.values()];
}

/** Of a compiled selection: the entries of its groups, each with what the group took by it before any other. */
export function attributeGroups({ groups, selection }: CompiledLike): Attribution {
  const rows: Attribution = [];
  const taken = new Set<string>();
  groups.forEach(({ entries }, index) => {
    const group = groups.length > 1 ? { group: index } : {};
    for (const { entry, kind, negative, modules } of entries) {
      if (negative) continue;
      const fresh = modules.filter((name) => !taken.has(name));
      for (const name of fresh) taken.add(name);
      if (kind === "name" || fresh.length === 0)
        rows.push({ by: { entry, option: "targetModules", ...group }, names: fresh });
      else {
        const parts = new Map<string, string[]>();
        for (const name of fresh) {
          const part = leafOf(name);
          const known = parts.get(part);
          if (known === undefined) parts.set(part, [name]);
          else known.push(name);
        }
        for (const [part, names] of parts)
          rows.push({ by: { entry, option: "targetModules", part, ...group }, names });
      }
    }
  });
  return [...rows, ...attributeSelection(selection).filter(({ by }) => by.option === "targetParameters")];
}
