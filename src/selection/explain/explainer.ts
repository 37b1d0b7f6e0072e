import { GraftError, type SelectionError } from "../../errors.ts";
import { Warnings } from "../failure.ts";
import { targetProblems } from "../peft/inject.ts";
import { isTruthy, type SelectionConfig } from "../peft/options.ts";
import { type Preparation, prepare } from "../peft/prepare.ts";
import { selectTargets } from "../peft/select.ts";
import { partsOf, type Selection } from "../peft/selection.ts";
import { Tails } from "../peft/tails.ts";
import { compareCodePoints, parentOf } from "../python.ts";
import type { ModuleTree } from "../tree.ts";
import { resolveAsked } from "./asked-names.ts";
import type { Explanation } from "./explanation.ts";
import { NearestEntry } from "./near.ts";
import { nearText, Rules, type Verdict } from "./rules.ts";

/**
 * Explains modules of one model and one configuration, one by one. Works also where PEFT refuses the configuration as
 * a whole: then `failure` says why, and each module is judged by the rules that do apply.
 */
export class Explainer {
  readonly tree: ModuleTree;
  /** What is selected; undefined where PEFT fails. */
  readonly selection: Selection | undefined;
  readonly failure: GraftError | undefined;
  /** Names of all modules, the model itself first; of the replicated model where layers are replicated. */
  readonly names: readonly string[];
  readonly #preparation: Preparation | undefined;
  readonly #rules: Rules | undefined;
  readonly #targets: ReadonlyMap<string, Selection["targets"][number]>;
  readonly #problems: ReadonlyMap<string, SelectionError>;
  readonly #saved: ReadonlySet<string>;
  readonly #tokens: ReadonlySet<string>;
  readonly #adapted: ReadonlyMap<string, readonly string[]>;

  constructor(tree: ModuleTree, config: SelectionConfig) {
    this.tree = tree;
    const { selection, failure } = attempt(() => selectTargets(tree, config));
    this.selection = selection;
    this.failure = failure;
    this.#preparation =
      selection === undefined
        ? attempt(() => prepare(tree, config, new Warnings())).selection
        : partsOf(selection).preparation;
    this.names = this.#preparation?.isDummy
      ? this.#preparation.live.names
      : (this.#preparation?.modules.names ?? tree.modules.map(({ name }) => name));
    this.#rules = this.#preparation && new Rules(tree, this.#preparation);
    this.#targets = new Map(
      [...(selection?.targets ?? []), ...(selection?.targetParameters ?? [])].map((target) => [
        target.name,
        target,
      ]),
    );
    this.#saved = new Set(selection?.modulesToSave);
    this.#tokens = new Set(selection?.tokenModules);
    this.#problems = selection === undefined ? this.#findProblems() : new Map();
    this.#adapted = this.#findAdapted();
  }

  /** Whether modules can be judged at all; else PEFT refuses the configuration before it looks at them. */
  get canJudge(): boolean {
    return this.#rules !== undefined;
  }

  /** Names of parameters that targetParameters adapts. */
  get parameterNames(): string[] {
    return [...this.#adapted].flatMap(([module, own]) => own.map((name) => `${module}.${name}`));
  }

  /** All modules in the model's order, then the adapted parameters. */
  all(): Explanation[] {
    return [...this.names, ...this.parameterNames].map((name) => this.of(name));
  }

  /** @throws SelectionError `unknown-module`. */
  asked(names: Iterable<string>): Explanation[] {
    return resolveAsked(names, this.names, allParameterNames(this.tree), this.tree.name).map((name) =>
      this.of(name),
    );
  }

  /** One module, or parameter, by its name. */
  of(name: string): Explanation {
    const kind = this.#infos.has(name) || name === "" ? "module" : "parameter";
    const verdict = kind === "module" ? this.#ofModule(name) : this.#ofParameter(name);
    const failure =
      this.failure === undefined
        ? {}
        : { failure: { code: this.failure.code, message: this.failure.message } };
    return { name, kind, ...verdict, ...failure };
  }

  #ofModule(name: string): Verdict {
    if (this.#rules === undefined)
      return {
        selected: false,
        rule: "failure",
        reason: `PEFT refuses the configuration before it looks at modules: ${this.failure!.message}`,
      };
    const kind = this.#infos.get(name);
    const verdict = this.#rules.judge(name, kind?.kind ?? "module", kind?.className ?? this.tree.className);
    const extra = [this.#trainedAnyhow(name, verdict), this.#problemOf(name, verdict), this.#valuesOf(name)];
    const adapted = this.#adapted.get(name);
    if (adapted === undefined && extra.every((part) => part === undefined)) return verdict;
    const notes = extra.flatMap((part) => part?.note ?? []);
    if (adapted !== undefined)
      notes.push(`targetParameters adapts its ${adapted.map((own) => JSON.stringify(own)).join(", ")}`);
    return {
      ...verdict,
      reason: [verdict.reason, ...notes].join("; "),
      ...extra[0]?.fields,
      ...extra[1]?.fields,
      ...extra[2]?.fields,
      ...(adapted === undefined ? {} : { adaptedParameters: adapted }),
    };
  }

  #trainedAnyhow(name: string, { rule }: Verdict) {
    if (this.#tokens.has(name))
      return { note: ["trainableTokenIndices trains some of its rows"], fields: {} };
    if (this.#saved.size === 0) return undefined;
    for (let around = name; around !== ""; around = parentOf(around))
      if (this.#saved.has(around)) {
        const note =
          rule === "modules-to-save"
            ? []
            : [`modulesToSave trains ${around === name ? "it" : `"${around}"`} as a whole`];
        return { note, fields: { saved: around } };
      }
    return undefined;
  }

  #problemOf(name: string, { selected }: Verdict) {
    const problem = selected ? this.#problems.get(name) : undefined;
    if (problem === undefined) return undefined;
    const { code, message } = problem;
    return { note: [`PEFT fails here: ${message}`], fields: { problem: { code, message } } };
  }

  #valuesOf(name: string) {
    const target = this.#targets.get(name);
    if (target === undefined) return undefined;
    const { r, alpha, scaling, parameters } = target;
    return { note: [], fields: { r, alpha, scaling, parameters } };
  }

  #ofParameter(name: string): Verdict {
    const module = parentOf(name);
    const own = name.slice(module.length + 1);
    const targets = this.#preparation?.config.targetParameters ?? null;
    if (this.#adapted.get(module)?.includes(own)) {
      const entry = parameterTails(targets!).find(name)!;
      const reason = this.#rules!.describeParameter(entry);
      return { selected: true, rule: "parameter", reason, entry, ...this.#valuesOf(name)?.fields };
    }
    const holder = this.#targets.has(module) ? `; its module "${module}" is adapted` : "";
    if (targets === null || !isTruthy(targets))
      return { selected: false, rule: "no-targets", reason: `targetParameters is not set${holder}` };
    const near = new NearestEntry(targets).find(name);
    return {
      selected: false,
      rule: "no-entry",
      reason: `no entry of targetParameters is its name or the end of it${nearText(near)}${holder}`,
      ...(near === undefined ? {} : { near }),
    };
  }

  #infosCache: ReadonlyMap<string, { readonly kind: string; readonly className: string }> | undefined;

  get #infos() {
    if (this.#infosCache === undefined) {
      const { tree } = this;
      const modules = this.#preparation?.modules;
      this.#infosCache =
        modules !== undefined && this.#preparation!.steps.isReplicated
          ? new Map(
              modules.names.map((name, index) => {
                const { kind, className } = modules.moduleAt(index);
                return [name, { kind, className }];
              }),
            )
          : new Map(tree.modules.map((module) => [module.name, module]));
    }
    return this.#infosCache;
  }

  /** What cannot be adapted of all that is matched. */
  #findProblems(): ReadonlyMap<string, SelectionError> {
    if (this.#preparation === undefined || this.#preparation.isDummy) return new Map();
    const { modules } = this.#preparation;
    const rules = this.#rules!;
    const matched = modules.names.flatMap((name, index) => (rules.isMatched(name) ? [index] : []));
    // a rank pattern that is no regex fails for each module alike, and `failure` has it
    return attempt(() => targetProblems(this.#preparation!, this.tree, matched)).selection ?? new Map();
  }

  /** Targeted parameters by module. */
  #findAdapted(): ReadonlyMap<string, readonly string[]> {
    const found = new Map<string, string[]>();
    const add = (module: string, own: string): void => {
      const known = found.get(module);
      if (known === undefined) found.set(module, [own]);
      else known.push(own);
    };
    if (this.selection !== undefined) {
      for (const { name } of this.selection.targetParameters)
        add(parentOf(name), name.slice(parentOf(name).length + 1));
      return found;
    }
    const targets = this.#preparation?.config.targetParameters ?? null;
    if (targets === null || !isTruthy(targets)) return found;
    const tails = parameterTails(targets);
    for (const { name, parameters } of this.tree.modules)
      for (const [own] of parameters)
        if (name !== "" && tails.find(`${name}.${own}`) !== undefined) add(name, own);
    return found;
  }
}

const parameterTails = (targets: Iterable<string>): Tails =>
  new Tails([...new Set(targets)].sort(compareCodePoints));

function* allParameterNames({ modules }: ModuleTree): Iterable<string> {
  for (const { name, parameters } of modules)
    for (const [own] of parameters) yield name === "" ? own : `${name}.${own}`;
}

/** Runs something that may fail on purpose. */
function attempt<T>(run: () => T): { selection?: T; failure?: GraftError } {
  try {
    return { selection: run() };
  } catch (failure) {
    if (failure instanceof GraftError) return { failure };
    throw failure;
  }
}
