import type { Selection } from "../peft/selection.ts";
import { structureOf } from "../structure/index.ts";
import { adaptableKinds, type ModuleKind, type ModuleTree } from "../tree.ts";
import { resolveAsked } from "./asked-names.ts";
import type { CompiledLike } from "./compiled.ts";
import { Explainer } from "./explainer.ts";
import type { Explanation, NearMiss } from "./explanation.ts";
import { NearestEntry } from "./near.ts";
import { nearText } from "./rules.ts";

type Group = CompiledLike["groups"][number];
type Entry = Group["entries"][number];

const noEntry = "no entry matches";

/** Explains modules by the groups of a compiled selection: what took each, or the first rule of every group that did not. */
export class GroupExplainer {
  readonly tree: ModuleTree;
  readonly selection: Selection;
  readonly failure: undefined;
  readonly names: readonly string[];
  readonly #groups: CompiledLike["groups"];
  /** By PEFT's own rules, on the compiled configuration. */
  readonly #compiled: Explainer;
  /** The group and the entry that took a module first. */
  readonly #takers = new Map<string, { readonly group: number; readonly entry: Entry }>();
  /** By group: the entries that match a module. */
  readonly #matching: ReadonlyMap<string, readonly Entry[]>[];
  readonly #nearest: readonly NearestEntry[];
  readonly #kinds: ReadonlyMap<string, ModuleKind>;

  constructor(tree: ModuleTree, { config, selection, groups }: CompiledLike) {
    this.tree = tree;
    this.selection = selection;
    this.#groups = groups;
    this.#compiled = new Explainer(tree, config);
    this.names = this.#compiled.names;
    this.#kinds = new Map(tree.modules.map(({ name, kind }) => [name, kind]));
    this.#matching = groups.map(({ entries }) => {
      const matching = new Map<string, Entry[]>();
      for (const entry of entries)
        for (const name of entry.matched) {
          const known = matching.get(name);
          if (known === undefined) matching.set(name, [entry]);
          else known.push(entry);
        }
      return matching;
    });
    groups.forEach(({ entries }, group) => {
      for (const entry of entries)
        if (!entry.negative)
          for (const name of entry.modules)
            if (!this.#takers.has(name)) this.#takers.set(name, { group, entry });
    });
    this.#nearest = groups.map(
      ({ entries }) =>
        new NearestEntry(
          entries.filter(({ kind, negative }) => kind === "name" && !negative).map(({ entry }) => entry),
        ),
    );
  }

  get canJudge(): boolean {
    return true;
  }

  all(): Explanation[] {
    return [...this.names, ...this.#compiled.parameterNames].map((name) => this.of(name));
  }

  /** @throws SelectionError `unknown-module`. */
  asked(names: Iterable<string>): Explanation[] {
    const parameters = this.tree.modules.flatMap(({ name, parameters: own }) =>
      own.map(([parameter]) => (name === "" ? parameter : `${name}.${parameter}`)),
    );
    return resolveAsked(names, this.names, parameters, this.tree.name).map((name) => this.of(name));
  }

  of(name: string): Explanation {
    const base = this.#compiled.of(name);
    if (base.kind === "parameter" || name === "") return base;
    const { near: _near, entry: _entry, layer: _layer, ...kept } = base;
    const taker = this.#takers.get(name);
    if (base.selected && taken(taker))
      return {
        ...kept,
        rule: "group",
        group: taker.group,
        entry: taker.entry.entry,
        reason: this.#labelled(taker.group, this.#whyTaken(taker.entry, this.#groups[taker.group]!, name)),
      };
    if (base.rule === "modules-to-save" && !this.#matching.some((group) => group.has(name))) return base;
    const misses = this.#groups.map((group, index) => this.#miss(name, group, index, base));
    const near =
      misses.find((miss) => miss.near !== undefined && miss.near.kind !== "spelling")?.near ??
      misses[0]?.near;
    return {
      ...kept,
      rule: base.rule === "modules-to-save" ? "modules-to-save" : "no-group",
      reason: misses.every(({ text }) => text === noEntry)
        ? misses.length === 1
          ? noEntry
          : "no entry of any group matches"
        : misses.map(({ text }, index) => this.#labelled(index, text)).join("; "),
      ...(near === undefined ? {} : { near }),
    };
  }

  #labelled(group: number, text: string): string {
    if (this.#groups.length === 1) return text;
    return `${this.#groups[group]!.spec.name ?? `group ${group + 1}`}: ${text}`;
  }

  #whyTaken({ entry, kind }: Entry, { spec }: Group, name: string): string {
    const quoted = JSON.stringify(entry);
    const taken =
      kind === "name"
        ? `the name ends with ${quoted}`
        : kind === "all-linear"
          ? "all-linear takes it"
          : `the ${kind} ${quoted} matches`;
    const layers =
      spec.layers === undefined || spec.layers === null
        ? ""
        : `, and ${this.#layerOf(name, spec.layers)} is in ${layersText(spec.layers)}`;
    return taken + layers;
  }

  #miss(name: string, group: Group, index: number, base: Explanation): { text: string; near?: NearMiss } {
    const matching = this.#matching[index]!.get(name) ?? [];
    const positive = matching.find(({ negative }) => !negative);
    if (positive === undefined) {
      const near = this.#nearest[index]!.find(name);
      return { text: `${noEntry}${nearText(near)}`, ...(near === undefined ? {} : { near }) };
    }
    const entry = positive.entry;
    const matched = `${JSON.stringify(entry)} matched; but`;
    if (!adaptableKinds.has(this.#kinds.get(name) ?? "module"))
      return { text: `${matched} this kind of module cannot carry LoRA` };
    const negative = matching.find((candidate) => candidate.negative);
    if (negative !== undefined)
      return {
        text: `${matched} ${JSON.stringify(negative.entry)} takes it away`,
        near: { kind: "excluded", entry },
      };
    if (base.rule === "modules-to-save")
      return { text: `${matched} ${base.reason}`, near: { kind: "excluded", entry } };
    const { layers } = group.spec;
    if (layers !== undefined && layers !== null)
      return {
        text: `${matched} ${this.#layerOf(name, layers)} is not in ${layersText(layers)}`,
        near: { kind: "no-layer", entry },
      };
    return { text: `${matched} it is not taken: ${base.reason}` };
  }

  /** `layer 3 of model.encoder.layers`: of the lists that `layers` names, or of the outermost. */
  #layerOf(name: string, layers: unknown): string {
    const { positions } = structureOf(this.tree).placeOf(name);
    const counted = isByList(layers)
      ? positions
      : positions.filter(({ list }) => list.isRepeated).slice(0, 1);
    if (counted.length === 0) return "a module outside of all layers";
    return counted.map(({ list, index }) => `layer ${index} of ${list.path}`).join(", ");
  }
}

const taken = <T>(taker: T | undefined): taker is T => taker !== undefined;

const isByList = (
  layers: unknown,
): layers is Readonly<Record<string, unknown>> | ReadonlyMap<string, unknown> =>
  typeof layers === "object" && layers !== null && !Array.isArray(layers);

/** Layers as they were given. */
function layersText(layers: unknown): string {
  const text = (value: unknown): string =>
    JSON.stringify(Array.isArray(value) && value.length === 1 ? value[0] : value);
  if (!isByList(layers)) return `layers ${text(layers)}`;
  const entries = layers instanceof Map ? [...layers] : Object.entries(layers);
  return entries.map(([list, value]) => `${list} ${text(value)}`).join(", ");
}
