import { GraftError } from "../../errors.ts";
import type { LayerHit } from "../peft/layer-filter.ts";
import { type Matcher, type MatchResult, makeMatcher } from "../peft/match.ts";
import type { Preparation } from "../peft/prepare.ts";
import { describeReason, quoteEntry, wantedLayers } from "../peft/reason.ts";
import { Tails } from "../peft/tails.ts";
import { isTiedName } from "../peft/tying.ts";
import type { ModuleTree } from "../tree.ts";
import type { Explanation, NearMiss, Rule } from "./explanation.ts";
import { NearestEntry, NearRegex } from "./near.ts";

/** An explanation but for its name. */
export type Verdict = Omit<Explanation, "name" | "kind" | "failure">;

/** The matching rules of a prepared configuration, with what happened to the targets before. */
export class Rules {
  readonly #tree: ModuleTree;
  readonly #preparation: Preparation;
  readonly #match: Matcher;
  /** The rules without exclusions. */
  readonly #otherwise: Matcher;
  readonly #nearest: NearestEntry | undefined;
  readonly #moved: Tails | undefined;
  readonly #given: Tails | undefined;
  #nearRegex: NearRegex | undefined;
  /** The first failure of a rule: all later modules share it. */
  #broken: GraftError | undefined;

  constructor(tree: ModuleTree, preparation: Preparation) {
    const { config, patterns, steps } = preparation;
    this.#tree = tree;
    this.#preparation = preparation;
    this.#match = makeMatcher(config, patterns);
    this.#otherwise = makeMatcher({ ...config, excludeModules: null, modulesToSave: null }, patterns);
    const { targetModules } = config;
    if (targetModules !== null && typeof targetModules !== "string")
      this.#nearest = new NearestEntry(targetModules);
    if (steps.moved !== null && steps.moved.size > 0) this.#moved = new Tails(steps.moved.keys());
    if (steps.condensed !== null) this.#given = new Tails(steps.condensed);
  }

  isMatched(name: string): boolean {
    return name !== "" && !this.#isTied(name) && this.#attempt(this.#match, name)?.status === "matched";
  }

  describeParameter(entry: string): string {
    const { steps } = this.#preparation;
    const from = [...(steps.moved ?? [])]
      .filter(([, parameter]) => parameter === entry)
      .map(([target]) => target);
    const origin =
      from.length === 0
        ? ""
        : `, which ${from.map((target) => JSON.stringify(target)).join(" and ")} of targetModules became ` +
          `(stacked experts of model type "${this.#tree.modelType}")`;
    return `the parameter's name ends with "${entry}" of targetParameters${origin}`;
  }

  judge(name: string, kind: string, className: string): Verdict {
    if (name === "") return { selected: false, rule: "root", reason: "the model itself is never a target" };
    const { config, isDummy } = this.#preparation;
    if (isDummy)
      return {
        selected: false,
        rule: "no-targets",
        reason: `targetModules is ${JSON.stringify(config.targetModules)}, which takes nothing`,
      };
    if (this.#isTied(name)) {
      const entry = this.#tree.inputEmbeddings ?? "";
      return {
        selected: true,
        rule: "tied",
        entry,
        reason: describeReason({ status: "matched", rule: "tied", entry }, config),
      };
    }
    const result = this.#attempt(this.#match, name);
    if (result === undefined)
      return {
        selected: false,
        rule: "failure",
        reason: `a rule cannot be applied: ${this.#broken!.message}`,
      };
    if (result.status === "matched") return this.#taken(name, result, className);
    if (result.status === "excluded") return this.#excluded(name, result);
    return this.#missed(name, result, kind, className);
  }

  #isTied(name: string): boolean {
    return isTiedName(this.#preparation.config.targetModulesToTie, name);
  }

  #attempt(match: Matcher, name: string): MatchResult | undefined {
    if (this.#broken !== undefined) return undefined;
    try {
      return match(name);
    } catch (error) {
      if (!(error instanceof GraftError)) throw error;
      this.#broken = error;
      return undefined;
    }
  }

  #taken(name: string, result: Extract<MatchResult, { status: "matched" }>, className: string): Verdict {
    const { config } = this.#preparation;
    const reason = `${this.#originOf(name, result.entry, className)}${describeReason(result, config)}`;
    return {
      selected: true,
      rule: this.#ruleOf(result.rule),
      reason,
      entry: result.entry,
      ...layerOf(result),
    };
  }

  #ruleOf(rule: "regex" | "name" | "suffix"): Rule {
    const { steps } = this.#preparation;
    return steps.isAllLinear ? "all-linear" : steps.isDefault ? "default-targets" : rule;
  }

  /** How the entry came into the configuration, where nobody wrote it there. */
  #originOf(name: string, entry: string, className: string): string {
    const { steps, config } = this.#preparation;
    if (steps.moved !== null && typeof steps.given === "string")
      return `${quoteEntry(steps.given)} became a list of last name parts (model type "${this.#tree.modelType}"); `;
    if (steps.isAllLinear) return `all-linear takes it: ${aOrAn(className)}; `;
    if (steps.isDefault) return `a default target of model type "${this.#tree.modelType}": `;
    const given = this.#given?.find(name);
    if (given !== undefined && given !== entry)
      return `listed as ${quoteEntry(given)}, in a list of ${steps.condensed!.size} names that PEFT condensed; `;
    if (config.targetModulesToTie !== null && name === this.#tree.inputEmbeddings)
      return "other layers are tied to it (ensureWeightTying); ";
    return "";
  }

  #excluded(name: string, result: Extract<MatchResult, { status: "excluded" }>): Verdict {
    const { config, steps } = this.#preparation;
    const otherwise = this.#attempt(this.#otherwise, name);
    const head =
      result.rule === "modules-to-save" && steps.heads.includes(result.entry)
        ? ` (a head, which taskType ${config.taskType} adds)`
        : "";
    const base = `${describeReason(result, config)}${head}`;
    const verdict = { selected: false, rule: result.rule, entry: result.entry } as const;
    if (otherwise?.status !== "matched") return { ...verdict, reason: base };
    return {
      ...verdict,
      reason: `${base}; ${otherwise.rule === "regex" ? "the regex" : quoteEntry(otherwise.entry)} would take it`,
      near: { kind: "excluded", entry: otherwise.entry },
    };
  }

  #missed(
    name: string,
    result: Extract<MatchResult, { status: "unmatched" }>,
    kind: string,
    className: string,
  ): Verdict {
    const { config, steps } = this.#preparation;
    const text = describeReason(result, config);
    const entry = result.entry === undefined ? {} : { entry: result.entry };
    switch (result.rule) {
      case "no-targets":
        return { selected: false, rule: "no-targets", reason: text };
      case "regex": {
        const near = this.#regexOf(result.entry!).measure(name);
        return {
          selected: false,
          rule: "no-regex-match",
          ...entry,
          near,
          reason: `${text}${nearText(near, name)}`,
        };
      }
      case "no-layer":
      case "layer": {
        const near: NearMiss =
          result.rule === "layer"
            ? { kind: "layer", entry: result.entry!, layer: result.layer!, wanted: wantedLayers(config) }
            : { kind: "no-layer", entry: result.entry! };
        return {
          selected: false,
          rule: result.rule,
          ...entry,
          ...layerOf(result),
          near,
          reason: `${this.#originOf(name, result.entry!, className)}${text}`,
        };
      }
      case "no-entry":
        break;
    }
    const moved = this.#moved?.find(name);
    if (moved !== undefined)
      return {
        selected: false,
        rule: "moved-to-parameters",
        entry: moved,
        reason:
          `${quoteEntry(moved)} matched; but for model type "${this.#tree.modelType}" it stands for the parameter ` +
          `"${steps.moved!.get(moved)}" (targetParameters)`,
      };
    if (steps.isAllLinear && steps.moved === null)
      return {
        selected: false,
        rule: "all-linear",
        reason:
          kind === "linear" || kind === "conv1d_hf"
            ? "all-linear leaves out the output head"
            : `all-linear takes Linear and Conv1D layers only; this is ${aOrAn(className)}`,
      };
    const near = this.#nearest?.find(name);
    return {
      selected: false,
      rule: "no-entry",
      reason: `${noEntry(this.#preparation)}${nearText(near)}`,
      ...(near === undefined ? {} : { near }),
    };
  }

  #regexOf(source: string): NearRegex {
    this.#nearRegex ??= new NearRegex(source);
    return this.#nearRegex;
  }
}

const aOrAn = (word: string): string => `${/^[AEIOU]/i.test(word) ? "an" : "a"} ${word}`;

const layerOf = ({ layer }: { readonly layer?: LayerHit }) => (layer === undefined ? {} : { layer });

function noEntry({ steps, config }: Preparation): string {
  if (steps.isDefault) {
    const targets = [...(config.targetModules as Set<string>)].map((entry) => JSON.stringify(entry));
    return `no default target (${targets.join(", ")}) is its name or the end of it`;
  }
  return "no entry of targetModules is its name or the end of it";
}

/** How near it was, as the end of a sentence. */
export function nearText(near: NearMiss | undefined, name = ""): string {
  switch (near?.kind) {
    case "tail":
      return `; ${quoteEntry(near.entry)} shares its last ${near.parts === 1 ? "part" : `${near.parts} parts`}`;
    case "spelling":
      return `; the nearest is ${quoteEntry(near.entry)}`;
    case "regex": {
      const would = [...(near.before ? ["in front"] : []), ...(near.after ? ["behind"] : [])];
      if (would.length > 0) return `; it would with ".*" ${would.join(" or ")}`;
      if (near.reached === undefined) return "";
      if (near.reached === name) return "; all of it fits the beginning, but the regex wants more";
      if (near.reached === "") return `; the regex begins with something else`;
      return `; it gets as far as ${quoteEntry(near.reached)}, then ${quoteEntry(name.slice(near.reached.length))} does not fit`;
    }
    default:
      return "";
  }
}
