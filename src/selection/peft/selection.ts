import type { SelectionWarning, Warnings } from "../failure.ts";
import type { ModuleTree, NamedShape } from "../tree.ts";
import type { Injection } from "./inject.ts";
import { type LiveModule, SavedWrapper, TokenWrapper } from "./live.ts";
import type { ResolvedConfig } from "./options.ts";
import type { Preparation } from "./prepare.ts";
import { type AdapterTensors, adapterTensors, plainAdapterTensors } from "./state-dict.ts";
import type { Target } from "./target.ts";
import { type Counts, countBase, countParameters } from "./trainable.ts";
import { getSubmodule, namedModules, namedParameters } from "./traverse.ts";
import { inputEmbedding } from "./tying.ts";

type Parts = {
  readonly tree: ModuleTree;
  readonly preparation: Preparation;
  readonly injection: Injection;
  readonly peftModel: LiveModule;
  readonly warnings: Warnings;
};

/** What the engine knows about a selection besides its results; for `explain`, not for users. */
export let partsOf: (selection: Selection) => Parts;

/** What a configuration selects in a model. */
export class Selection {
  /** Adapted modules in PEFT's order: as the model lists them, tied ones last. */
  readonly targets: readonly Target[];
  readonly targetParameters: readonly Target[];
  /** Modules trained as a whole; names as they are after wrapping. */
  readonly modulesToSave: readonly string[];
  /** Modules of which some token rows are trained. */
  readonly tokenModules: readonly string[];
  readonly trainableParameters: number;
  /** All parameters of the adapted model. */
  readonly totalParameters: number;
  readonly warnings: readonly SelectionWarning[];
  /** The configuration as the injection leaves it. */
  readonly config: ResolvedConfig;
  readonly #parts: Parts;
  #saved: AdapterTensors | undefined;

  constructor(parts: Parts) {
    const { preparation, injection, warnings } = parts;
    this.#parts = parts;
    this.targets = injection.modules;
    this.targetParameters = injection.parameters;
    const { saved, tokens } = findWrapped(parts);
    this.modulesToSave = saved;
    this.tokenModules = tokens;
    const { trainable, total } = count(parts);
    this.trainableParameters = trainable;
    this.totalParameters = total;
    this.warnings = warnings.list;
    this.config = preparation.config;
  }

  static {
    partsOf = (selection) => selection.#parts;
  }

  /** Trainable parameters that are not LoRA's, by their names in the PEFT model. */
  get trainableExtra(): readonly string[] {
    return namedParameters(this.#parts.peftModel)
      .filter(([name, parameter]) => parameter.requiresGrad && !name.includes(".lora_"))
      .map(([name]) => name);
  }

  /** Keys and shapes of adapter_model.safetensors, in PEFT's order. Computed when first read. */
  get stateDict(): readonly NamedShape[] {
    return this.#tensors().tensors;
  }

  /** What PEFT warns of when it saves. */
  get stateDictWarnings(): readonly SelectionWarning[] {
    return this.#tensors().warnings.list;
  }

  #tensors(): AdapterTensors {
    const { tree, preparation, injection, peftModel } = this.#parts;
    const { config, patterns, live } = preparation;
    const { root } = live;
    const output = tree.outputEmbeddings;
    if (injection.parameters.length === 0)
      this.#saved ??= plainAdapterTensors(tree, injection.modules, config, patterns);
    this.#saved ??= adapterTensors(
      peftModel,
      config,
      {
        input: () => inputEmbedding(tree, root),
        output: () => (output === null ? null : (getSubmodule(root, output) ?? null)),
      },
      patterns,
    );
    return this.#saved;
  }
}

/** Walks the model only if something besides LoRA layers may have changed it. */
function count({ tree, preparation, injection }: Parts): Counts {
  const { config, live } = preparation;
  const isPlain =
    config.modulesToSave === null &&
    config.trainableTokenIndices === null &&
    config.layerReplication === null &&
    config.bias === "none" &&
    tree.duplicateModules.length === 0 &&
    !injection.modules.some(({ layer }) => layer === "MultiheadAttention");
  if (!isPlain) return countParameters(live.root);
  const { size, trained } = injection;
  return { total: countBase(tree) + size, trainable: trained };
}

function findWrapped({ preparation: { config, live } }: Parts): { saved: string[]; tokens: string[] } {
  const saved: string[] = [];
  const tokens: string[] = [];
  if (config.modulesToSave !== null || config.trainableTokenIndices !== null)
    for (const { name, module } of namedModules(live.root, { duplicates: false })) {
      if (module instanceof SavedWrapper) saved.push(name);
      else if (module instanceof TokenWrapper) tokens.push(name);
    }
  return { saved, tokens };
}
