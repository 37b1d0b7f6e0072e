import type { Rules } from "./rules.ts";
import { compareReleases, type PeftRelease, parseRelease } from "./version.ts";

/** One change of PEFT's rules of selection. */
export type RuleChange = {
  readonly id: string;
  /** The first release with the new rule. */
  readonly since: string;
  /** What holds since then, and what held before. */
  readonly what: string;
  /** The pull request, or commit, of huggingface/peft. */
  readonly reference: string;
  /** The rules that it replaced. */
  readonly before: Partial<Rules>;
};

const mambaBefore020 = ["falcon_h1", "mamba", "mamba2", "falcon_mamba"];

/** Every change up to PEFT 0.21, newest first. Default targets of model types are in default-targets.ts. */
export const ruleChanges: readonly RuleChange[] = [
  {
    id: "layers-pattern-prefix",
    since: "0.21.0",
    what:
      "layersPattern matches at the start of a name too (layers.0.…); before, a name had to come before it. And its " +
      "number is found by name; before, a pattern with a group of its own failed.",
    reference: "#2158",
    before: { needsPrefix: true },
  },
  {
    id: "layers-pattern-layer-0",
    since: "0.21.0",
    what: "layersPattern is accepted with layersToTransform 0; before, that was an error.",
    reference: "#3425",
    before: { patternNeedsLayers: "truthy" },
  },
  {
    id: "first-layer-index",
    since: "0.20.0",
    what:
      "The layer is the first number in a module's name; before, the last, which in a mixture of experts is the " +
      "expert's.",
    reference: "#3318",
    before: { layers: "last" },
  },
  {
    id: "experts-in-regex",
    since: "0.20.0",
    what:
      "Old names of stacked experts are found in a regex and in all-linear too; before, the string was taken apart " +
      "into letters, which match nothing.",
    reference: "#3232",
    before: { experts: "lists" },
  },
  {
    id: "mamba-nemotron-h",
    since: "0.20.0",
    what: "conv1d and out_proj of nemotron_h are refused; before, they were adapted.",
    reference: "#3289",
    before: { mamba: mambaBefore020 },
  },
  {
    id: "experts-renamed",
    since: "0.19.0",
    what:
      "Old names of expert projections (w1, gate_proj) in a list stand for the stacked parameters that transformers 5 " +
      "made of them; before, they matched modules only.",
    reference: "#3083",
    before: { experts: "kept" },
  },
  {
    id: "tied-targets",
    since: "0.19.0",
    what: "ensureWeightTying adapts the layers tied to an adapted embedding; before, it looked at saved modules only.",
    reference: "#2879",
    before: { ties: false },
  },
  {
    id: "target-parameters",
    since: "0.17.0",
    what: "targetParameters is read; before, there was no such option.",
    reference: "#2638",
    before: { parameters: false },
  },
  {
    id: "saved-modules-excluded",
    since: "0.16.0",
    what:
      "Saved modules, all below them, and a SEQ_CLS head are not adapted; before, only modules whose names end like an " +
      "entry of modulesToSave.",
    reference: "#2481",
    before: { saved: "any-end" },
  },
  {
    id: "mamba-refused",
    since: "0.16.0",
    what: "conv1d and out_proj of Mamba models are refused; before, they were adapted.",
    reference: "#2562",
    before: { mamba: [] },
  },
  {
    id: "pattern-tail",
    since: "0.15.0",
    what:
      "A key of rankPattern or alphaPattern may match the whole name (^ pins it); before, only what follows a dot, and " +
      "an alternative in a key was not held together.",
    reference: "#2419",
    before: { patterns: "after-dot" },
  },
  {
    id: "all-linear-names",
    since: "0.15.0",
    what:
      "all-linear stands for full names, so the output layer alone is left out, in any model; before, for last name " +
      "parts, so a head below the top level was adapted, or layers that share its name were not.",
    reference: "#2391, #2267",
    before: { allLinear: "leaves-no-head" },
  },
  {
    id: "multihead-attention-conv1d",
    since: "0.15.0",
    what: "nn.MultiheadAttention and nn.Conv1d can be adapted; before, they were refused.",
    reference: "#1324, #2333",
    before: { missingKinds: ["mha", "conv1d"] },
  },
  {
    id: "exclude-modules",
    since: "0.14.0",
    what: "excludeModules is read; before, there was no such option.",
    reference: "#2102",
    before: { excludes: false, skipsRoot: false },
  },
  {
    id: "patterns-apart",
    since: "0.14.0",
    what: "Ranks and alphas are looked up apart; before, the first key of either table that matched decided for both.",
    reference: "#2195",
    before: { patterns: "after-dot-joint" },
  },
  {
    id: "layers-pattern-needs-layers",
    since: "0.14.0",
    what: "layersPattern without layersToTransform is an error; before, it was ignored.",
    reference: "#2159",
    before: { patternNeedsLayers: "never" },
  },
  {
    id: "conv3d",
    since: "0.14.0",
    what: "nn.Conv3d can be adapted; before, it was refused.",
    reference: "#2082",
    before: { missingKinds: ["mha", "conv1d", "conv3d"] },
  },
  {
    id: "condense-tail",
    since: "0.13.2",
    what:
      "When a list of 20 entries or more is condensed, other modules are those that no entry matches; before, modules " +
      "whose names end like an entry were overlooked, so a condensed entry could take them too.",
    reference: "#2144",
    before: { condense: "any-end" },
  },
  {
    id: "condense",
    since: "0.13.0",
    what:
      "Lists of 20 entries or more are condensed to tails, and layersToTransform then filters full names too; before, " +
      "lists were used as they are.",
    reference: "#2045",
    before: { condense: "never" },
  },
  {
    id: "all-linear-classifier",
    since: "0.13.0",
    what: "all-linear leaves the head of a SEQ_CLS model out; before, it was adapted.",
    reference: "#2033",
    before: { allLinear: "leaves" },
  },
  {
    id: "any-container",
    since: "0.8.0",
    what:
      "Without layersPattern any numbered part counts as a layer, an empty layersToTransform filters nothing, and " +
      "entries that are full names are not filtered; before, only layers, h, block, blocks and layer held layers.",
    reference: "#1263",
    before: { layers: "common" },
  },
  {
    id: "all-linear",
    since: "0.8.0",
    what: "all-linear is known; before, it was a regex like any other.",
    reference: "#1295",
    before: { allLinear: "none" },
  },
  {
    id: "saved-modules-skipped",
    since: "0.6.2",
    what: "Modules to save are not adapted; before, they were adapted and saved.",
    reference: "#1112",
    before: { saved: "kept" },
  },
  {
    id: "literal-entries",
    since: "0.6.0",
    what: "Entries of a list are literal; before, they were regexes.",
    reference: "#993",
    before: { entries: "regex" },
  },
  {
    id: "rank-pattern",
    since: "0.6.0",
    what: "rankPattern and alphaPattern are read; before, there were no such options.",
    reference: "#873",
    before: { patterns: "ignored" },
  },
  {
    id: "dotted-entries",
    since: "0.5.0",
    what: "An entry matches after a dot only; before, any end of a name (proj matched q_proj).",
    reference: "#749",
    before: { entries: "any-end" },
  },
  {
    id: "layers-to-transform",
    since: "0.4.0",
    what: "layersToTransform and nn.Conv2d are known; before, all layers were taken.",
    reference: "#429, #461",
    before: { layers: "ignored", missingKinds: ["mha", "conv1d", "conv2d", "conv3d"] },
  },
];

/** The oldest release whose rules are known. */
export const oldestRelease = "0.3.0";

/** Changes that came after `release`, newest first. A development version has none of the changes of its release. */
export const changesAfter = (release: PeftRelease): RuleChange[] =>
  ruleChanges.filter(({ since }) => compareReleases(release, parseRelease(since)!) < 0);

/** `rules` as they were before `changes`, which are newest first. */
export const rulesBefore = (rules: Rules, changes: readonly RuleChange[]): Rules =>
  Object.assign({}, rules, ...changes.map(({ before }) => before));
