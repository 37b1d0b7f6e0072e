import { listProblems, RegexError, SelectionError } from "../../errors.ts";
import type { SelectionConfig } from "../peft/options.ts";
import { selectTargets } from "../peft/select.ts";
import type { Selection } from "../peft/selection.ts";
import type { Target } from "../peft/target.ts";
import type { ModuleTree } from "../tree.ts";
import type { Candidate } from "./forms.ts";
import { fullNameKeys, patternKeys } from "./keys.ts";
import type { Places } from "./places.ts";
import { Synthesis } from "./synthesis.ts";
import type { RankAndAlpha } from "./wanted.ts";

/** Proves candidates. */
export class Attempt {
  readonly #tree: ModuleTree;
  readonly #names: ReadonlySet<string>;
  readonly #values: ReadonlyMap<string, RankAndAlpha> | undefined;
  readonly #parameters: ReadonlySet<string>;
  readonly #base: SelectionConfig;
  readonly #tables: readonly SelectionConfig[];
  #refusal: SelectionError | RegexError | undefined;
  /** What the best candidate that PEFT accepts does wrong. */
  #mismatch: { readonly extra: readonly string[]; readonly missing: readonly string[] } | undefined;

  constructor(
    tree: ModuleTree,
    places: Places,
    names: ReadonlySet<string>,
    ranks: ReadonlyMap<string, RankAndAlpha> | undefined,
    parameters: readonly Target[],
    base: SelectionConfig,
  ) {
    this.#tree = tree;
    this.#names = names;
    this.#base = base;
    this.#parameters = new Set(parameters.map(({ name }) => name));
    if (ranks === undefined) {
      this.#values = undefined;
      this.#tables = [{}];
      return;
    }
    const values = new Map([
      ...ranks,
      ...parameters.map(({ name, r, alpha }) => [name, { r, alpha }] as const),
    ]);
    this.#values = values;
    this.#tables = values.size === 0 ? [{}] : tablesFor(places, values);
  }

  /** undefined where PEFT would select anything else. */
  run({ form, cost: _, ...fields }: Candidate): Synthesis | undefined {
    for (const table of this.#tables) {
      const config: SelectionConfig = { ...this.#base, ...fields, ...table };
      const selection = this.#select(config);
      if (selection === undefined) return undefined;
      if (!this.#hasNames(selection)) {
        this.#mismatch ??= this.#compare(selection);
        return undefined;
      }
      if (this.#hasValues(selection)) return new Synthesis(this.#tree, config, form, selection);
    }
    return undefined;
  }

  /** No modules, only parameters. */
  nothing(): Synthesis {
    const result =
      this.#parameters.size > 0 ? this.run({ form: "list", cost: 0, targetModules: [] }) : undefined;
    if (result !== undefined) return result;
    throw notExpressible([
      "No module is wanted, and PEFT refuses a configuration that adapts nothing. Name at least one",
    ]);
  }

  failure(): SelectionError {
    const refusal = this.#refusal;
    const mismatch = this.#mismatch;
    if (mismatch === undefined && refusal !== undefined)
      return notExpressible(
        [`PEFT refuses them with the rest of this configuration: ${refusal.message}`],
        {},
        refusal,
      );
    const { extra = [], missing = [] } = mismatch ?? {};
    const differences = [
      ...(extra.length > 0 ? [`would also adapt ${some(extra)}`] : []),
      ...(missing.length > 0 ? [`would not adapt ${some(missing)}`] : []),
    ];
    const what = differences.length > 0 ? differences.join(" and ") : "would give them other ranks or alphas";
    return notExpressible([`With the rest of this configuration, PEFT ${what}`], { extra, missing });
  }

  #select(config: SelectionConfig): Selection | undefined {
    try {
      return selectTargets(this.#tree, config);
    } catch (error) {
      if (!(error instanceof SelectionError || error instanceof RegexError)) throw error;
      this.#refusal ??= error;
      return undefined;
    }
  }

  #hasNames({ targets, targetParameters, warnings }: Selection): boolean {
    if (
      this.#base.ensureWeightTying &&
      warnings.some(({ code }) => code === "tying-requested-nothing-to-tie")
    ) {
      const { inputEmbeddings } = this.#tree;
      if (inputEmbeddings !== null && this.#names.has(inputEmbeddings)) return false;
    }
    return (
      targets.length === this.#names.size &&
      targets.every(({ name }) => this.#names.has(name)) &&
      targetParameters.length === this.#parameters.size &&
      targetParameters.every(({ name }) => this.#parameters.has(name))
    );
  }

  #compare({ targets, targetParameters }: Selection) {
    const wanted = new Set([...this.#names, ...this.#parameters]);
    const names = new Set([...targets, ...targetParameters].map(({ name }) => name));
    return {
      extra: [...names].filter((name) => !wanted.has(name)),
      missing: [...wanted].filter((name) => !names.has(name)),
    };
  }

  #hasValues({ targets, targetParameters }: Selection): boolean {
    const values = this.#values;
    if (values === undefined) return true;
    return [...targets, ...targetParameters].every(({ name, r, alpha }) => {
      const wanted = values.get(name)!;
      return wanted.r === r && wanted.alpha === alpha;
    });
  }
}

/** The most common pair is everybody's, and patterns say who has others; readable patterns before certain ones. */
function tablesFor(places: Places, values: ReadonlyMap<string, RankAndAlpha>): SelectionConfig[] {
  const counts = new Map<string, { pair: RankAndAlpha; count: number }>();
  for (const pair of values.values()) {
    const key = `${pair.r} ${pair.alpha}`;
    const known = counts.get(key);
    if (known === undefined) counts.set(key, { pair, count: 1 });
    else known.count++;
  }
  const { pair } = [...counts.values()].reduce((best, next) => (next.count > best.count ? next : best));
  const ranks = new Map([...values].map(([name, { r }]) => [name, r]));
  const alphas = new Map([...values].map(([name, { alpha }]) => [name, alpha]));
  const table = (keysOf: typeof fullNameKeys): SelectionConfig => ({
    r: pair.r,
    loraAlpha: pair.alpha,
    rankPattern: Object.fromEntries(keysOf(ranks, pair.r)),
    alphaPattern: Object.fromEntries(keysOf(alphas, pair.alpha)),
  });
  const short = table((own, base) => patternKeys(places, own, base));
  return counts.size === 1 ? [short] : [short, table(fullNameKeys)];
}

export const some = ([first, ...more]: readonly string[]): string =>
  `${JSON.stringify(first)}${more.length > 0 ? ` and ${more.length} more` : ""}`;

export function notExpressible(
  problems: readonly string[],
  details: Record<string, unknown> = {},
  cause?: SelectionError | RegexError,
): SelectionError {
  return new SelectionError(
    `No PEFT configuration selects exactly these modules. ${listProblems(problems)}.`.replace(/\.\.$/, "."),
    {
      code: "not-expressible",
      details: { problems, ...details, ...(cause === undefined ? {} : { refusal: cause.code }) },
      ...(cause === undefined ? {} : { cause }),
    },
  );
}
