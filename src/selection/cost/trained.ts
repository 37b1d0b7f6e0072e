import { SelectionError } from "../../errors.ts";
import { moeRenames } from "../peft/defaults.ts";
import type { ResolvedConfig } from "../peft/options.ts";
import type { Selection } from "../peft/selection.ts";
import type { Target } from "../peft/target.ts";
import { leafOf, parentOf } from "../python.ts";
import type { ModuleTree, NamedShape } from "../tree.ts";
import { AdapterFile, countedModules, type StoredDtype } from "./file-size.ts";
import type { Trained } from "./flowing.ts";
import type { Layout, Stage } from "./layout.ts";
import type { Unit } from "./units.ts";

/** What is trained, unit by unit, and what is saved of it. */
export type TrainedUnits = {
  of(unit: Unit): Trained;
  isStageTrained(stage: Stage): boolean;
  /** What of a module that is no unit is trained: all of it, or its bias alone. */
  ofNorm(name: string): "weight" | "bias" | undefined;
  readonly parameters: number;
  readonly file: { readonly parameters: number; readonly bytes: number };
};

const prefix = "base_model.model.";

/** Base weights that are saved along stay as they are stored. */
const storedDtypes: Readonly<Record<string, StoredDtype>> = { bfloat16: "BF16", float16: "F16" };

/** Marks on units: what of each is trained. */
class Marks {
  readonly rank: Float64Array;
  readonly weight: Uint8Array;
  readonly other: Uint8Array;
  readonly stages = new Set<Stage>();
  readonly norms = new Map<string, "weight" | "bias">();

  constructor({ units }: Layout) {
    this.rank = new Float64Array(units.length);
    this.weight = new Uint8Array(units.length);
    this.other = new Uint8Array(units.length);
  }

  of({ id }: Unit): Trained {
    return { rank: this.rank[id]!, weight: this.weight[id] === 1, other: this.other[id] === 1 };
  }
}

/** What a selection trains. */
export function trainedBySelection(tree: ModuleTree, selection: Selection, layout: Layout): TrainedUnits {
  const marks = new Marks(layout);
  const { unitOf, parameterUnits } = layout;
  const indexOf = lookUp(tree);
  const file = new AdapterFile(prefix);
  const shared = new SharedTensors(selection.targets.length > countedModules);
  const adaptInner = (name: string, r: number): void => {
    const unit = unitOf[indexOf(name)] ?? -1;
    if (unit !== -1) marks.rank[unit]! += r;
  };
  let savesMore = hasOtherTensors(tree, selection);
  for (const target of selection.targets) {
    const { name, r, layer } = target;
    const unit = unitOf[indexOf(name)] ?? -1;
    if (unit !== -1) marks.rank[unit]! += r;
    if (layer === "MultiheadAttention") adaptInner(`${name}.out_proj`, r);
    savesMore ||= layer === "MultiheadAttention" || layer === "Embedding" || isEmbeddingName(name);
    shared.add(file, target, unit);
  }
  shared.flush(file);
  for (const { name, r } of selection.targetParameters) {
    const stacked = parameterUnits.get(name) ?? layout.units[unitOf[indexOf(name.replace(/\.weight$/, ""))]!];
    if (stacked !== undefined) marks.rank[stacked.id]! += r * stacked.experts;
  }
  markOthers(tree, selection, layout, marks);
  return {
    of: (unit) => marks.of(unit),
    isStageTrained: (stage) => marks.stages.has(stage),
    ofNorm: (name) => marks.norms.get(name),
    parameters: selection.trainableParameters,
    file: (savesMore && wholeFile(tree, selection)) || file,
  };
}

/** Adapters of one unit and size have the same tensors, which are then looked at once. */
class SharedTensors {
  readonly #known: {
    parameters: number;
    tensors: readonly NamedShape[];
    modules: number;
    nameLength: number;
  }[] = [];
  readonly #isLarge: boolean;

  /** @param isLarge only count names; `flush` then adds what was counted. */
  constructor(isLarge: boolean) {
    this.#isLarge = isLarge;
  }

  add(file: AdapterFile, target: Target, unit: number): void {
    const { name, parameters } = target;
    let known = this.#known[unit];
    if (known === undefined || known.parameters !== parameters) {
      const tensors = target.tensors.map(([own, shape]): NamedShape => [`.${own}`, shape]);
      if (unit === -1 || known !== undefined) {
        file.add(name, tensors);
        return;
      }
      known = this.#known[unit] = { parameters, tensors, modules: 0, nameLength: 0 };
    }
    if (!this.#isLarge) file.add(name, known.tensors);
    known.modules++;
    known.nameLength += name.length;
  }

  flush(file: AdapterFile): void {
    if (this.#isLarge)
      for (const { modules, nameLength, tensors } of Object.values(this.#known))
        file.addMany(modules, nameLength, tensors);
  }
}

/** Their base weights may be saved along. */
const isEmbeddingName = (name: string): boolean => {
  const last = name.charCodeAt(name.length - 1);
  return (last === 115 && name.endsWith("embed_tokens")) || (last === 100 && name.endsWith("lm_head"));
};

/** Index of a module by its name. Names come in the order of the modules as a rule, so the next ones are tried first. */
function lookUp({ modules }: ModuleTree): (name: string) => number {
  let next = 0;
  let byName: Map<string, number> | undefined;
  return (name) => {
    if (byName === undefined) {
      while (next < modules.length) if (modules[next++]!.name === name) return next - 1;
      byName = new Map(modules.map((module, index) => [module.name, index]));
    }
    return byName.get(name) ?? -1;
  };
}

/** Modules trained as a whole, tokens, and biases. */
function markOthers(
  tree: ModuleTree,
  { modulesToSave, tokenModules, config }: Selection,
  layout: Layout,
  marks: Marks,
): void {
  if (modulesToSave.length === 0 && tokenModules.length === 0 && config.bias !== "all") return;
  const { unitOf, stageOf, stages } = layout;
  const saved = new Set(modulesToSave);
  const tokens = new Set(tokenModules);
  const isSaved = (name: string): boolean => {
    for (let part = name; part !== ""; part = parentOf(part)) if (saved.has(part)) return true;
    return false;
  };
  tree.modules.forEach(({ name, parameters }, index) => {
    const isWhole = saved.size > 0 && isSaved(name);
    const hasOther =
      tokens.has(name) || (config.bias === "all" && parameters.some(([own]) => own === "bias"));
    if (!isWhole && !hasOther) return;
    const unit = unitOf[index]!;
    const stage = stages[stageOf[index]!];
    if (unit !== -1) (isWhole ? marks.weight : marks.other)[unit] = 1;
    else if (parameters.length > 0) {
      marks.norms.set(name, isWhole ? "weight" : "bias");
      if (stage !== undefined) marks.stages.add(stage);
    }
    for (const [own] of isWhole ? parameters : []) {
      const stacked = layout.parameterUnits.get(`${name}.${own}`);
      if (stacked !== undefined) marks.weight[stacked.id] = 1;
    }
  });
}

/** The file where it holds more than factors of adapted modules; undefined where PEFT could not save it. */
function wholeFile(tree: ModuleTree, selection: Selection): AdapterFile | undefined {
  const file = new AdapterFile("");
  const stored = storedDtypes[tree.config.dtype ?? ""] ?? "F32";
  try {
    for (const [name, shape] of selection.stateDict)
      file.add(name, [["", shape]], name.endsWith(".base_layer.weight") ? stored : "F32");
    return file;
  } catch (error) {
    // of models that do not say which module embeds their input
    if (error instanceof SelectionError) return undefined;
    throw error;
  }
}

/** Whether something besides the factors of adapted modules is saved, or under other names. */
const hasOtherTensors = (tree: ModuleTree, { targetParameters, config }: Selection): boolean =>
  targetParameters.length > 0 ||
  config.bias !== "none" ||
  config.modulesToSave !== null ||
  config.trainableTokenIndices !== null ||
  tree.duplicateModules.length > 0;

/**
 * What `targetModules: "all-linear"` would train with the rank and the kind of adapter of `selection`, from the modules'
 * shapes alone. What else is trained (whole modules, biases, tokens) is taken to stay as it is.
 */
export function trainedByAllLinear(tree: ModuleTree, selection: Selection, layout: Layout): TrainedUnits {
  const { config } = selection;
  const { r } = config;
  const marks = new Marks(layout);
  const renames = Object.hasOwn(moeRenames, tree.modelType) ? moeRenames[tree.modelType]! : undefined;
  const skipped = headOf(tree, config);
  const file = new AdapterFile(prefix);
  for (const unit of layout.units) {
    const { id, name, isLinear, inputs, outputs, experts } = unit;
    if (!isLinear || name === skipped) continue;
    // where experts are stacked parameters, names of their projections mean those, and nothing else
    if (renames !== undefined && Object.hasOwn(renames.map, leafOf(name))) {
      if (!`${name}.weight`.endsWith(`.${renames.map[leafOf(name)]}`)) continue;
    }
    marks.rank[id] = r * experts;
    const tensors = tensorsOf(inputs, outputs, config);
    if (experts === 1) file.add(name, tensors);
    else if (tree.modules.length > countedModules) file.addMany(experts, unit.nameLength, tensors);
    else
      tree.modules.forEach((module, index) => {
        if (layout.unitOf[index] === id) file.add(module.name, tensors);
      });
  }
  if (renames !== undefined) addStacked(layout, marks, file, { r, ...renames });
  const others = new Marks(layout);
  markOthers(tree, selection, layout, others);
  return {
    of: (unit) => ({ ...others.of(unit), rank: marks.of(unit).rank }),
    isStageTrained: (stage) => others.stages.has(stage),
    ofNorm: (name) => others.norms.get(name),
    parameters: file.parameters + otherParameters(selection),
    file,
  };
}

const tensorsOf = (
  inputs: number,
  outputs: number,
  { r, useDora, loraBias }: ResolvedConfig,
): NamedShape[] => [
  [".lora_A.weight", [r, inputs]],
  [".lora_B.weight", [outputs, r]],
  ...(loraBias ? ([[".lora_B.bias", [outputs]]] as const) : []),
  ...(useDora ? ([[".lora_magnitude_vector", [outputs]]] as const) : []),
];

/** Stacked experts and routers. Wrappers of one module's parameters are nested, the last one outermost. */
function addStacked(
  { parameterUnits }: Layout,
  marks: Marks,
  file: AdapterFile,
  { r, map, fused }: { r: number } & (typeof moeRenames)[string],
): void {
  const entries = [...new Set(Object.values(map))];
  const depth = new Map<string, number>();
  for (const [key, unit] of [...parameterUnits].reverse()) {
    const found = entries.find((name) => key.endsWith(`.${name}`));
    if (found === undefined) continue;
    const total = r * (fused[found]?.length ?? 1) * unit.experts;
    marks.rank[unit.id]! += total;
    const holder = parentOf(key);
    const inner = depth.get(holder) ?? 0;
    depth.set(holder, inner + 1);
    file.add(`${holder}${".base_layer".repeat(inner)}`, [
      [".lora_A.weight", [total, unit.factorA]],
      [".lora_B.weight", [unit.factorB, total]],
    ]);
  }
}

/** What a selection trains besides its adapters. */
function otherParameters({ targets, targetParameters, trainableParameters, config }: Selection): number {
  if (config.bias === "none" && config.modulesToSave === null && config.trainableTokenIndices === null)
    return 0;
  return [...targets, ...targetParameters].reduce(
    (rest, { parameters }) => rest - parameters,
    trainableParameters,
  );
}

/** The output head, which "all-linear" leaves out. */
function headOf(
  { isPretrainedModel, outputEmbeddings, seqClsHeads }: ModuleTree,
  { taskType }: ResolvedConfig,
): string | undefined {
  if (!isPretrainedModel) return undefined;
  if (outputEmbeddings !== null) return outputEmbeddings;
  return taskType === "SEQ_CLS"
    ? ["score", "classifier"].find((name) => seqClsHeads.includes(name))
    : undefined;
}
