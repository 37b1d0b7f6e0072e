import { listProblems, RegexError, SelectionError } from "../../errors.ts";
import { Warnings } from "../failure.ts";
import { allLinearNames } from "../peft/all-linear.ts";
import { resolveConfig } from "../peft/config.ts";
import { headsByTaskType } from "../peft/defaults.ts";
import { LiveTree, listingOf } from "../peft/live-tree.ts";
import { makeMatcher } from "../peft/match.ts";
import type { ResolvedConfig, SelectionConfig } from "../peft/options.ts";
import { isTruthy } from "../peft/options.ts";
import { Patterns } from "../peft/patterns.ts";
import { describeReason } from "../peft/reason.ts";
import { replicateLayers } from "../peft/replicate.ts";
import { selectTargets } from "../peft/select.ts";
import type { Selection } from "../peft/selection.ts";
import type { Target } from "../peft/target.ts";
import { namedModules } from "../peft/traverse.ts";
import { leafOf } from "../python.ts";
import type { ModuleKind, ModuleTree } from "../tree.ts";
import { type Deeper, onDeeperSibling } from "./deeper.ts";
import { type Candidate, candidatesFor, type Form, lastResorts, type Problem } from "./forms.ts";
import { fullNameKeys, patternKeys } from "./keys.ts";
import { type Places, placesOf } from "./places.ts";
import { checkWanted, type RankAndAlpha, renamedLeaves } from "./wanted.ts";

export type SynthesizeOptions = {
  /**
   * All other fields of the configuration; they are kept, and the proof is run with them. Its `targetModules`,
   * `layersToTransform` and `layersPattern` are replaced, entries may be added to its `excludeModules`, and where ranks
   * are wanted, `r`, `loraAlpha`, `rankPattern` and `alphaPattern` are replaced too.
   */
  readonly base?: SelectionConfig;
};

/** A configuration that selects exactly what was wanted. */
export class Synthesis {
  /** Plain PEFT fields. */
  readonly config: SelectionConfig;
  readonly form: Form;
  /** The proof: what PEFT's rules make of `config`. */
  readonly selection: Selection;
  readonly exact = true;
  readonly #tree: ModuleTree;
  #deeper: Deeper | undefined;

  constructor(tree: ModuleTree, config: SelectionConfig, form: Form, selection: Selection) {
    this.#tree = tree;
    this.config = config;
    this.form = form;
    this.selection = selection;
  }

  /** Whether the configuration means the same on a model of this kind with more layers. Found out when first read. */
  get deeper(): Deeper {
    const names = new Set(this.selection.targets.map(({ name }) => name));
    this.#deeper ??= onDeeperSibling(this.#tree, placesOf(this.#tree), this.config, names);
    return this.#deeper;
  }
}

/**
 * The shortest plain PEFT configuration that selects exactly the wanted modules, and gives them the wanted ranks and
 * alphas. Lists of names come before lists limited to layers, before one regex; each is tried on the PEFT engine until
 * one is exact.
 *
 *     synthesize(tree, ["model.layers.14.self_attn.q_proj", "model.layers.15.self_attn.q_proj"]).config
 *     // { targetModules: ["q_proj"], layersToTransform: [14, 15] }
 *
 * @param wanted names of modules; as a map, with the rank and alpha of each.
 * @throws SelectionError `unknown-module` or `unsupported-module` with all such names, `not-expressible` where PEFT has
 * no configuration for the set.
 */
export function synthesize(
  tree: ModuleTree,
  wanted: Iterable<string> | ReadonlyMap<string, RankAndAlpha>,
  { base = {} }: SynthesizeOptions = {},
): Synthesis {
  const ranks = wanted instanceof Map ? (wanted as ReadonlyMap<string, RankAndAlpha>) : undefined;
  const names = new Set(ranks === undefined ? (wanted as Iterable<string>) : ranks.keys());
  const { targetModules: _, layersToTransform: __, layersPattern: ___, ...kept } = base;
  const effective = replicated(tree, kept);
  const places = placesOf(effective);
  checkWanted(effective, places, names);
  const problem = pose(effective, places, names, kept);
  const parameters = parametersOf(tree, kept);
  const attempt = new Attempt(tree, places, names, ranks, parameters, kept);
  if (names.size === 0) return attempt.nothing();
  for (const candidate of candidatesFor(problem)) {
    const result = attempt.run(candidate);
    if (result !== undefined) return result;
  }
  for (const candidate of lastResorts(problem)) {
    const result = attempt.run(candidate);
    if (result !== undefined) return result;
  }
  throw attempt.failure();
}

/** The tree that PEFT walks: with `layerReplication` it is another one. */
function replicated(tree: ModuleTree, { layerReplication }: SelectionConfig): ModuleTree {
  if (!layerReplication || layerReplication.length === 0) return tree;
  const { root } = new LiveTree(tree);
  replicateLayers(root, layerReplication);
  const listing = listingOf(namedModules(root, { duplicates: false }));
  const modules = listing.names.map((name, i) => ({
    name,
    className: listing.moduleAt(i).className,
    kind: listing.kindAt(i) as ModuleKind,
    in: null,
    out: null,
    parameters: [],
  }));
  return { ...tree, modules };
}

function pose(tree: ModuleTree, places: Places, wanted: ReadonlySet<string>, base: SelectionConfig): Problem {
  const config = resolveConfig({ ...base, targetModules: [] }, new Warnings());
  const isExcluded = exclusionOf(config);
  const renamed = renamedLeaves(tree);
  const obstacles = new Map<string, string[]>();
  for (const name of wanted) {
    const reason =
      isExcluded(name) ??
      (renamed?.has(leafOf(name))
        ? `PEFT takes "${leafOf(name)}" for stacked parameters in every model of type "${tree.modelType}"`
        : undefined);
    if (reason === undefined) continue;
    const names = obstacles.get(reason);
    if (names === undefined) obstacles.set(reason, [name]);
    else names.push(name);
  }
  if (obstacles.size > 0)
    throw notExpressible(
      [...obstacles].map(([reason, names]) => `${some(names)}: ${reason}`),
      { modules: [...obstacles.values()].flat() },
    );
  const names = tree.modules
    .map(({ name }) => name)
    .filter((name) => name !== "" && isExcluded(name) === undefined);
  const listing = {
    names: tree.modules.map(({ name }) => name),
    kindAt: (index: number) => tree.modules[index]!.kind,
  };
  const linear = allLinearNames(listing, tree, config);
  for (const name of linear) if (isExcluded(name) !== undefined) linear.delete(name);
  return {
    places,
    shapes: places.shapesOf(names, wanted),
    wanted,
    others: names.filter((name) => !wanted.has(name)),
    linear,
    excluded: base.excludeModules ?? null,
    allowsRegex: renamed === undefined,
  };
}

/** Why the rest of a configuration keeps a module from being a target. */
function exclusionOf(config: ResolvedConfig): (name: string) => string | undefined {
  const heads = config.taskType === "SEQ_CLS" ? headsByTaskType["SEQ_CLS"]! : [];
  if (heads.length > 0) config.modulesToSave = [...(config.modulesToSave ?? []), ...heads];
  if (!isTruthy(config.excludeModules) && !isTruthy(config.modulesToSave as string[] | null))
    return () => undefined;
  const match = makeMatcher(config, new Patterns(new Warnings()));
  return (name) => {
    const result = match(name);
    return result.status === "excluded" ? describeReason(result, config) : undefined;
  };
}

/** What `targetParameters` adapts, whatever the modules are. */
function parametersOf(tree: ModuleTree, base: SelectionConfig): readonly Target[] {
  if (!isTruthy(base.targetParameters ?? null)) return [];
  return selectTargets(tree, { ...base, targetModules: [] }).targetParameters;
}

/** Proves candidates. */
class Attempt {
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

const some = ([first, ...more]: readonly string[]): string =>
  `${JSON.stringify(first)}${more.length > 0 ? ` and ${more.length} more` : ""}`;

function notExpressible(
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
