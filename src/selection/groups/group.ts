import type { Place, Structure } from "../structure/index.ts";
import type { ModuleInfo } from "../tree.ts";
import { EntryTable, type PlacedEntry } from "./entries.ts";
import { type LayerRule, makeLayerRule, type Report } from "./layers.ts";
import type { LayersSpec } from "./spec.ts";

/** What a group is resolved in. */
export type Model = {
  readonly modules: readonly ModuleInfo[];
  /** Names of linear layers but the output head. */
  readonly linear: ReadonlySet<string>;
  readonly structure: () => Structure;
  /** Whether LoRA can adapt a module at all. */
  readonly canCarry: (module: ModuleInfo) => boolean;
  /** Whether it is trained as a whole, by modulesToSave. */
  readonly isSaved: (name: string) => boolean;
};

/** An entry and what became of the modules that it matches. */
export type EntryOutcome = {
  readonly entry: PlacedEntry;
  readonly matched: string[];
  /** Taken by the group; of a negative entry, taken away. */
  readonly modules: string[];
  /** Of a kind that cannot carry LoRA. */
  readonly unsupported: ModuleInfo[];
  /** Outside the layers of the group. */
  readonly outside: string[];
  /** Trained as a whole. */
  readonly saved: string[];
};

export type GroupOutcome = { readonly modules: readonly string[]; readonly entries: readonly EntryOutcome[] };

/**
 * The modules of one group: what any entry takes, less what any negative entry takes away, in the wanted layers. The
 * order of the entries does not matter.
 */
export function resolveGroup(
  entries: readonly PlacedEntry[],
  layers: LayersSpec | undefined,
  model: Model,
  report: Report,
): GroupOutcome {
  const table = new EntryTable(entries, model.linear, report);
  const outcomes = entries.map(
    (entry): EntryOutcome => ({ entry, matched: [], modules: [], unsupported: [], outside: [], saved: [] }),
  );
  const candidates: { name: string; takers: EntryOutcome[] }[] = [];
  for (const module of model.modules) {
    const { name } = module;
    if (name === "") continue;
    const hits = table.matching(name).map((index) => outcomes[index]!);
    if (hits.length === 0) continue;
    for (const { matched } of hits) matched.push(name);
    const takers = hits.filter(({ entry }) => !entry.isNegative);
    if (takers.length === 0) continue;
    if (!model.canCarry(module)) for (const { unsupported } of takers) unsupported.push(module);
    else if (hits.length > takers.length) {
      for (const { entry, modules } of hits) if (entry.isNegative) modules.push(name);
    } else if (model.isSaved(name)) for (const { saved } of takers) saved.push(name);
    else candidates.push({ name, takers });
  }
  const accepts = layerTest(layers, candidates, model, report);
  const modules: string[] = [];
  candidates.forEach(({ name, takers }, index) => {
    const isTaken = accepts(index);
    if (isTaken) modules.push(name);
    for (const taker of takers) (isTaken ? taker.modules : taker.outside).push(name);
  });
  return { modules, entries: outcomes };
}

function layerTest(
  layers: LayersSpec | undefined,
  candidates: readonly { readonly name: string }[],
  { structure }: Model,
  report: Report,
): (candidate: number) => boolean {
  if (layers === undefined || layers === null) return () => true;
  const found = structure();
  const places: Place[] = candidates.map(({ name }) => found.placeOf(name));
  const rule: LayerRule = makeLayerRule(layers, found, places, report);
  return (candidate) => rule(places[candidate]!);
}
