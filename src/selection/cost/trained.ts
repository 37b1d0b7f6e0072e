import { SelectionError } from "../../errors.ts";
import { moeRenames } from "../peft/defaults.ts";
import type { ResolvedConfig } from "../peft/options.ts";
import type { Selection } from "../peft/selection.ts";
import { leafOf, parentOf } from "../python.ts";
import type { ModuleTree, NamedShape } from "../tree.ts";
import type { SavedTensors, StoredDtype } from "./file-size.ts";
import type { Trained } from "./flow.ts";
import type { Layout, Stage, Unit } from "./layout.ts";

/** What is trained, unit by unit, and the adapter's file. */
export type TrainedUnits = {
  of(unit: Unit): Trained;
  isStageTrained(stage: Stage): boolean;
  readonly parameters: number;
  tensors(): SavedTensors[];
};

type Marks = {
  readonly rank: Float64Array;
  readonly weight: Uint8Array;
  readonly other: Uint8Array;
  readonly stages: Set<Stage>;
};

const newMarks = (units: number): Marks => ({
  rank: new Float64Array(units),
  weight: new Uint8Array(units),
  other: new Uint8Array(units),
  stages: new Set(),
});

const answers = (marks: Marks): Pick<TrainedUnits, "of" | "isStageTrained"> => ({
  of: ({ id }) => ({
    rank: marks.rank[id]!,
    weight: marks.weight[id] === 1,
    other: marks.other[id] === 1,
  }),
  isStageTrained: (stage) => marks.stages.has(stage),
});

/** Base weights that are saved along stay as they are stored. */
const storedDtypes: Readonly<Record<string, StoredDtype>> = { bfloat16: "BF16", float16: "F16" };

const prefix = "base_model.model.";

/** What a selection trains. */
export function trainedBySelection(tree: ModuleTree, selection: Selection, layout: Layout): TrainedUnits {
  const marks = newMarks(layout.units.length);
  const indexOf = lookUp(tree);
  let nested = false;
  for (const { name, r, layer } of selection.targets) {
    mark(layout, marks, indexOf(name), r);
    if (layer !== "MultiheadAttention") continue;
    nested = true;
    mark(layout, marks, indexOf(`${name}.out_proj`), r);
  }
  for (const { name, r } of selection.targetParameters) {
    const unit = layout.parameterUnits.get(name) ?? layout.units[layout.unitOf[indexOf(name.replace(/\.weight$/, ""))]!];
    if (unit !== undefined) marks.rank[unit.id]! += r * unit.experts;
  }
  markOthers(tree, selection, layout, marks, indexOf);
  const { targets, targetParameters, config } = selection;
  const isPlain =
    !nested &&
    targetParameters.length === 0 &&
    config.bias === "none" &&
    config.modulesToSave === null &&
    config.trainableTokenIndices === null &&
    tree.duplicateModules.length === 0 &&
    !targets.some(({ name, layer }) => layer === "Embedding" || /(?:^|\.)(?:embed_tokens|lm_head)$/.test(name));
  return {
    ...answers(marks),
    parameters: selection.trainableParameters,
    tensors: () => savedTensors(tree, selection, isPlain),
  };
}

function savedTensors(tree: ModuleTree, selection: Selection, isPlain: boolean): SavedTensors[] {
  if (!isPlain)
    try {
      const stored = storedDtypes[tree.config.dtype ?? ""] ?? "F32";
      return selection.stateDict.map(([module, shape]) => ({
        module,
        tensors: [["", shape]],
        ...(module.endsWith(".base_layer.weight") && { dtype: stored }),
      }));
    } catch (error) {
      // PEFT cannot save some selections, of models that do not say which module embeds their input
      if (!(error instanceof SelectionError)) throw error;
    }
  return selection.targets.map(({ name, tensors }) => ({ module: `${prefix}${name}.`, tensors }));
}

/** Index of a module by its name: names are asked for in the order of the modules as a rule, so the next is tried first. */
function lookUp({ modules }: ModuleTree): (name: string) => number {
  let next = 0;
  let byName: Map<string, number> | undefined;
  return (name) => {
    for (; next < modules.length && byName === undefined; next++) if (modules[next]!.name === name) return next++;
    byName ??= new Map(modules.map((module, index) => [module.name, index]));
    return byName.get(name) ?? -1;
  };
}

function mark({ unitOf }: Layout, { rank }: Marks, index: number, r: number): void {
  const unit = unitOf[index] ?? -1;
  if (unit !== -1) rank[unit]! += r;
}

/** Modules trained as a whole, tokens, and biases. */
function markOthers(
  tree: ModuleTree,
  { modulesToSave, tokenModules, config }: Selection,
  layout: Layout,
  marks: Marks,
  indexOf: (name: string) => number,
): void {
  const { unitOf, stageOf, stages } = layout;
  for (const name of tokenModules) {
    const unit = unitOf[indexOf(name)] ?? -1;
    if (unit !== -1) marks.other[unit] = 1;
  }
  if (modulesToSave.length === 0 && config.bias !== "all") return;
  const isSaved = (name: string): boolean =>
    modulesToSave.some((saved) => name === saved || name.startsWith(`${saved}.`));
  tree.modules.forEach(({ name, parameters }, index) => {
    const saved = isSaved(name);
    const biased = config.bias === "all" && parameters.some(([own]) => own === "bias");
    if (!saved && !biased) return;
    const unit = unitOf[index]!;
    const stage = stages[stageOf[index]!];
    if (unit !== -1) (saved ? marks.weight : marks.other)[unit] = 1;
    else if (stage !== undefined && parameters.length > 0) marks.stages.add(stage);
    if (saved)
      for (const [own] of parameters) {
        const stacked = layout.parameterUnits.get(`${name}.${own}`);
        if (stacked !== undefined) marks.weight[stacked.id] = 1;
      }
  });
}

/**
 * What `targetModules: "all-linear"` would train with the rank and the kind of adapter of `selection`, from the modules'
 * shapes alone. What else is trained (whole modules, biases, tokens) is taken to stay as it is.
 */
export function trainedByAllLinear(tree: ModuleTree, selection: Selection, layout: Layout): TrainedUnits {
  const { config } = selection;
  const { r } = config;
  const marks = newMarks(layout.units.length);
  const renames = Object.hasOwn(moeRenames, tree.modelType) ? moeRenames[tree.modelType]! : undefined;
  const skipped = headOf(tree, config);
  const adapted: { name: string; inputs: number; outputs: number }[] = [];
  const stacked: { unit: Unit; rank: number }[] = [];
  let parameters = 0;
  tree.modules.forEach((module, index) => {
    const { name, kind } = module;
    if ((kind !== "linear" && kind !== "conv1d_hf") || name === skipped) return;
    // where experts are stacked parameters, names of their projections mean those, and nothing else
    if (renames !== undefined && Object.hasOwn(renames.map, leafOf(name))) {
      if (!`${name}.weight`.endsWith(`.${renames.map[leafOf(name)]}`)) return;
    }
    const inputs = module.in ?? 0;
    const outputs = module.out ?? 0;
    parameters += sizeOf(inputs, outputs, config);
    adapted.push({ name, inputs, outputs });
    mark(layout, marks, index, r);
  });
  if (renames !== undefined) {
    const names = new Set(Object.values(renames.map));
    for (const [key, unit] of layout.parameterUnits) {
      const entry = [...names].find((name) => key.endsWith(`.${name}`));
      if (entry === undefined) continue;
      const rank = r * (renames.fused[entry]?.length ?? 1);
      stacked.push({ unit, rank });
      marks.rank[unit.id]! += rank * unit.experts;
      parameters += rank * unit.experts * (unit.factorA + unit.factorB);
    }
  }
  const others = otherParameters(selection);
  const { of, isStageTrained } = trainedOthers(tree, selection, layout);
  const own = answers(marks);
  return {
    of: (unit) => ({ ...of(unit), rank: own.of(unit).rank }),
    isStageTrained,
    parameters: parameters + others,
    tensors() {
      const known = new Map<string, readonly NamedShape[]>();
      const linear = adapted.map(({ name, inputs, outputs }) => {
        const key = `${inputs} ${outputs}`;
        let tensors = known.get(key);
        if (tensors === undefined) known.set(key, (tensors = tensorsOf(inputs, outputs, config)));
        return { module: `${prefix}${name}.`, tensors };
      });
      return [...linear, ...stackedTensors(stacked)];
    },
  };
}

function trainedOthers(tree: ModuleTree, selection: Selection, layout: Layout) {
  const marks = newMarks(layout.units.length);
  markOthers(tree, selection, layout, marks, lookUp(tree));
  return answers(marks);
}

/** What a selection trains besides its adapters. */
function otherParameters({ targets, targetParameters, trainableParameters, config }: Selection): number {
  if (config.bias === "none" && config.modulesToSave === null && config.trainableTokenIndices === null) return 0;
  return [...targets, ...targetParameters].reduce((rest, { parameters }) => rest - parameters, trainableParameters);
}

/** The output head, which "all-linear" leaves out. */
function headOf({ isPretrainedModel, outputEmbeddings, seqClsHeads }: ModuleTree, { taskType }: ResolvedConfig) {
  if (!isPretrainedModel) return undefined;
  if (outputEmbeddings !== null) return outputEmbeddings;
  return taskType === "SEQ_CLS" ? ["score", "classifier"].find((name) => seqClsHeads.includes(name)) : undefined;
}

const sizeOf = (inputs: number, outputs: number, { r, useDora, loraBias }: ResolvedConfig): number =>
  r * (inputs + outputs) + (useDora ? outputs : 0) + (loraBias ? outputs : 0);

const tensorsOf = (inputs: number, outputs: number, { r, useDora, loraBias }: ResolvedConfig): NamedShape[] => [
  ["lora_A.weight", [r, inputs]],
  ["lora_B.weight", [outputs, r]],
  ...(loraBias ? ([["lora_B.bias", [outputs]]] as const) : []),
  ...(useDora ? ([["lora_magnitude_vector", [outputs]]] as const) : []),
];

/** Wrappers of a module's parameters are nested, the last one outermost. */
function stackedTensors(stacked: readonly { unit: Unit; rank: number }[]): SavedTensors[] {
  const depth = new Map<string, number>();
  return stacked.toReversed().map(({ unit, rank }) => {
    const holder = parentOf(unit.name);
    const inner = depth.get(holder) ?? 0;
    depth.set(holder, inner + 1);
    const total = rank * unit.experts;
    return {
      module: `${prefix}${holder}.${"base_layer.".repeat(inner)}`,
      tensors: [
        ["lora_A.weight", [total, unit.factorA]],
        ["lora_B.weight", [unit.factorB, total]],
      ],
    };
  });
}
