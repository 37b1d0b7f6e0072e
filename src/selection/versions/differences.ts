import { SelectionError } from "../../errors.ts";
import { isAllLinear } from "../peft/all-linear.ts";
import { minTargetModulesForShrinking, moeRenames } from "../peft/defaults.ts";
import { countNames, isTruthy, type SelectionConfig } from "../peft/options.ts";
import type { ModuleTree } from "../tree.ts";
import { changesAfter, oldestRelease, type RuleChange, rulesBefore } from "./changes.ts";
import { type Choice, chooseByRules } from "./choose.ts";
import { changesOfDefaults } from "./default-targets.ts";
import { describeDifferences } from "./message.ts";
import type { RankAndAlpha } from "./ranks.ts";
import { currentRules, type Rules } from "./rules.ts";
import {
  compareReleases,
  currentRelease,
  firstRecorded,
  lastUnrecorded,
  type PeftRelease,
  parseRelease,
} from "./version.ts";

/** A target whose rank or alpha the other rules set differently. */
export type ChangedRank = {
  readonly name: string;
  readonly before: RankAndAlpha;
  readonly now: RankAndAlpha;
};

/** How the choice of PEFT 0.21, which Graft follows, differs from that of the release that wrote a configuration. */
export type VersionDifferences = {
  /** `peft_version` as given; null where the file has none. */
  readonly version: string | null;
  /** Who wrote the file, in words. */
  readonly wrote: string;
  /** The release whose rules were applied; null where they are not known (newer, malformed). */
  readonly rulesOf: string | null;
  readonly differs: boolean;
  /** Targets, in the model's order, that only 0.21 chooses. */
  readonly added: readonly string[];
  /** Targets that only the other release chooses. */
  readonly removed: readonly string[];
  readonly changedRanks: readonly ChangedRank[];
  /** Why that release, or 0.21, would fail instead of choosing; null where it would not. */
  readonly thenFails: string | null;
  readonly nowFails: string | null;
  /** The changes that make the difference, newest first. */
  readonly changes: readonly RuleChange[];
  /** A sentence or two for people; empty where nothing differs and the version is known. */
  readonly message: string;
};

type Outcome = { readonly choice: Choice; readonly fails: string | null };

/**
 * Which modules the PEFT release that wrote a configuration would choose in `tree`, compared with PEFT 0.21.
 * Without a version the file was written by PEFT 0.17.1 or older, or not by PEFT: then 0.17.1 is compared.
 * Releases from 0.3 on are known. Rules of newer releases than 0.21 are not; then nothing is compared and the message
 * says so. Neither the names of modules, which depend on the version of transformers, nor dtypes are compared.
 *
 * @param config the configuration as the file has it; of `get_peft_model`'s options those that choose targets count.
 * @param peftVersion `peft_version` of adapter_config.json.
 * @throws RegexError `regex-too-slow` if matching a pattern exceeds the bound.
 * Source: PEFT's history; docs/peft-versions.md.
 */
export function versionDifferences(
  tree: ModuleTree,
  config: SelectionConfig,
  peftVersion?: string | null,
): VersionDifferences {
  const version = typeof peftVersion === "string" ? peftVersion : null;
  const release = parseRelease(version ?? lastUnrecorded);
  const current = parseRelease(currentRelease)!;
  if (release === undefined)
    return unknownRules(
      version,
      `"${shorten(version ?? "")}" is not a version of PEFT, so it is not known by whose rules this configuration was made.`,
      "unknown",
    );
  if (
    release.major > 0 ||
    release.minor > current.minor ||
    (release.minor === current.minor && release.isPre && release.patch > 0)
  )
    return unknownRules(
      version,
      `PEFT ${shorten(version ?? "")} is newer than ${currentRelease}, whose rules Graft follows; whether it chooses otherwise is not known.`,
      `PEFT ${shorten(version ?? "")}`,
    );
  if (compareReleases(release, parseRelease(oldestRelease)!) < 0)
    return unknownRules(
      version,
      `PEFT ${shorten(version ?? "")} is older than ${oldestRelease}; its rules are not known.`,
      `PEFT ${shorten(version ?? "")}`,
    );
  const wrote =
    version === null
      ? `PEFT before ${firstRecorded}, or something else (there is no peft_version)`
      : `PEFT ${shorten(version)}`;
  return compare(tree, config, { version, wrote, release });
}

type Writer = { readonly version: string | null; readonly wrote: string; readonly release: PeftRelease };

function compare(
  tree: ModuleTree,
  config: SelectionConfig,
  { version, wrote, release }: Writer,
): VersionDifferences {
  const rulesOf = `${release.major}.${release.minor}.${release.patch}`;
  const changes = changesAfter(release).filter(({ before }) =>
    (Object.keys(before) as (keyof Rules)[]).some((rule) => concerns(rule, tree, config)),
  );
  const ofDefaults = config.targetModules == null ? changesOfDefaults(tree.modelType, release) : [];
  const same = { version, wrote, rulesOf, thenFails: null, nowFails: null };
  const none = {
    ...same,
    differs: false,
    added: [],
    removed: [],
    changedRanks: [],
    changes: [],
    message: "",
  };
  if (changes.length + ofDefaults.length === 0) return none;
  const current = parseRelease(currentRelease)!;
  const now = outcome(tree, config, currentRules, current);
  const then = outcome(tree, config, rulesBefore(currentRules, changes), release);
  if (isEqual(now, then)) return none;
  const result = {
    ...same,
    differs: true,
    added: [...now.choice.keys()].filter((name) => !then.choice.has(name)),
    removed: [...then.choice.keys()].filter((name) => !now.choice.has(name)),
    changedRanks: changedRanks(now.choice, then.choice),
    thenFails: then.fails,
    nowFails: now.fails,
    changes: causes(tree, config, now, changes, ofDefaults, release),
  };
  return { ...result, message: describeDifferences(result, then.choice.size, now.choice.size) };
}

/** Undoes one change after the other, newest first; those that change the outcome are the causes. */
function causes(
  tree: ModuleTree,
  config: SelectionConfig,
  now: Outcome,
  changes: readonly RuleChange[],
  ofDefaults: readonly RuleChange[],
  release: PeftRelease,
): RuleChange[] {
  const found: RuleChange[] = [];
  const current = parseRelease(currentRelease)!;
  let rules = currentRules;
  let last = now;
  for (const change of changes) {
    rules = rulesBefore(rules, [change]);
    const next = outcome(tree, config, rules, current);
    if (!isEqual(last, next)) found.push(change);
    last = next;
  }
  if (ofDefaults.length > 0 && !isEqual(last, outcome(tree, config, rules, release)))
    found.push(...ofDefaults);
  return found;
}

function outcome(tree: ModuleTree, config: SelectionConfig, rules: Rules, release: PeftRelease): Outcome {
  try {
    return { choice: chooseByRules(tree, config, rules, release), fails: null };
  } catch (error) {
    if (!(error instanceof SelectionError)) throw error;
    return { choice: new Map(), fails: error.message };
  }
}

const isEqual = (a: Outcome, b: Outcome): boolean =>
  (a.fails === null) === (b.fails === null) &&
  a.choice.size === b.choice.size &&
  [...a.choice].every(([name, values]) => hasSameValues(values, b.choice.get(name)));

const hasSameValues = (a: RankAndAlpha, b: RankAndAlpha | undefined): boolean =>
  b !== undefined && a.r === b.r && a.alpha === b.alpha;

function changedRanks(now: Choice, then: Choice): ChangedRank[] {
  const changed: ChangedRank[] = [];
  for (const [name, values] of now) {
    const old = then.get(name);
    if (old !== undefined && !hasSameValues(values, old)) changed.push({ name, before: old, now: values });
  }
  return changed;
}

/** Can a rule matter for this configuration at all? */
function concerns(rule: keyof Rules, tree: ModuleTree, config: SelectionConfig): boolean {
  const { targetModules = null, layersPattern = null, taskType } = config;
  switch (rule) {
    case "layers":
      return config.layersToTransform != null;
    case "needsPrefix":
    case "patternNeedsLayers":
      return isTruthy(layersPattern);
    case "patterns":
      return isFilled(config.rankPattern) || isFilled(config.alphaPattern);
    case "allLinear":
      return typeof targetModules === "string" && isAllLinear(targetModules);
    case "condense":
      return countNames(targetModules) >= minTargetModulesForShrinking || targetModules === "all-linear";
    case "saved":
      return taskType === "SEQ_CLS" || isTruthy(config.modulesToSave ?? null);
    case "excludes":
      return isTruthy(config.excludeModules ?? null);
    case "skipsRoot":
      return typeof targetModules === "string" || [...(targetModules ?? [])].includes("");
    case "parameters":
      return isTruthy(config.targetParameters ?? null);
    case "experts":
      return Object.hasOwn(moeRenames, tree.modelType);
    case "ties":
      return config.ensureWeightTying === true;
    case "mamba":
      return currentRules.mamba.includes(tree.modelType);
    case "missingKinds":
      return tree.modules.some(({ kind }) => kind === "mha" || kind.startsWith("conv"));
    case "entries":
      return countNames(targetModules) > 0;
  }
}

const isFilled = (table: SelectionConfig["rankPattern"]): boolean =>
  table != null && (table instanceof Map ? table.size : Object.keys(table).length) > 0;

const shorten = (text: string): string => (text.length > 40 ? `${text.slice(0, 40)}…` : text);

const unknownRules = (version: string | null, message: string, wrote: string): VersionDifferences => ({
  version,
  wrote,
  rulesOf: null,
  differs: false,
  added: [],
  removed: [],
  changedRanks: [],
  thenFails: null,
  nowFails: null,
  changes: [],
  message,
});
