import type { ModuleInfo, ModuleKind } from "../tree.ts";
import type { LoraPlan } from "./lora-plan.ts";

/**
 * A model while PEFT rewrites it. Wrapping, copying and sharing of module objects decide which names, tensors and
 * counts come out in the end, so modules and parameters have identity here as they have in PyTorch.
 */

/** Number of elements. */
export function sizeOf(shape: readonly number[]): number {
  let product = 1;
  for (const dim of shape) product *= dim;
  return product;
}

/** One parameter object; tied paths share it. */
export class LiveParameter {
  readonly shape: readonly number[];
  requiresGrad: boolean;
  constructor(shape: readonly number[], requiresGrad = false) {
    this.shape = shape;
    this.requiresGrad = requiresGrad;
  }
  get size(): number {
    return sizeOf(this.shape);
  }
}

/** What a module is beyond the kinds of a plain model. */
export type LiveKind =
  | ModuleKind
  | "parameterdict"
  | "lora"
  | "saved-wrapper"
  | "token-wrapper"
  | "token-layer"
  | "peft-model";

/** Stands for "no entries" until the first one is set, so that most modules need no maps of their own. */
const none = new Map<string, never>();

export class LiveModule {
  readonly className: string;
  readonly kind: LiveKind;
  readonly info: ModuleInfo | null;
  /** Saved buffers. */
  buffers: Map<string, readonly number[]>;
  #parameters: Map<string, LiveParameter> | undefined;
  #children: Map<string, LiveModule>;

  constructor(className: string, kind: LiveKind, info: ModuleInfo | null = null) {
    this.className = className;
    this.kind = kind;
    this.info = info;
    this.buffers = none;
    this.#parameters = undefined;
    this.#children = none;
  }

  /** Own parameters in registration order; made when first asked for. */
  get parameters(): ReadonlyMap<string, LiveParameter> {
    if (this.#parameters === undefined) {
      this.#parameters = none;
      for (const [own, shape] of this.info?.parameters ?? [])
        this.setParameter(own, new LiveParameter(shape));
    }
    return this.#parameters;
  }

  get children(): ReadonlyMap<string, LiveModule> {
    return this.#children;
  }

  /** Registers a child; an existing name keeps its position. */
  setChild(name: string, child: LiveModule): void {
    if (this.#children === none) this.#children = new Map();
    this.#children.set(name, child);
  }

  /** Registers all children anew, in this order. */
  replaceChildren(children: Iterable<readonly [string, LiveModule]>): void {
    this.#children = new Map(children);
  }

  setParameter(name: string, parameter: LiveParameter): void {
    if (this.#parameters === undefined || this.#parameters === none) {
      const made = this.parameters;
      if (made === none) this.#parameters = new Map();
    }
    this.#parameters!.set(name, parameter);
  }

  /** Starts without the parameters that `info` tells of, for a copy. */
  clearParameters(): void {
    this.#parameters = none;
  }

  /** Moves a parameter behind the others, as deleting and registering it again does. */
  moveParameterLast(name: string): void {
    const parameter = this.parameters.get(name);
    if (parameter === undefined) return;
    this.#parameters!.delete(name);
    this.#parameters!.set(name, parameter);
  }

  setBuffer(name: string, shape: readonly number[]): void {
    if (this.buffers === none) this.buffers = new Map();
    this.buffers.set(name, shape);
  }

  /** What Python's getattr finds: a child, or what a wrapper forwards to. */
  attribute(name: string): LiveModule | LiveParameter | undefined {
    return this.parameters.get(name) ?? this.children.get(name);
  }

  /** Called by `deepCopy` with the copies of parameters, buffers and children still to be filled in. */
  emptyCopy(): LiveModule {
    return new LiveModule(this.className, this.kind, this.info);
  }
}

/**
 * A LoRA layer around `base`. Its inner modules (lora_A, lora_dropout, …) are made only when somebody looks, which
 * for most selections is never.
 */
export class LoraModule extends LiveModule {
  readonly plan: LoraPlan;
  #base: LiveModule;
  #materialized = false;

  constructor(base: LiveModule, plan: LoraPlan) {
    super(plan.spec.layer, "lora", null);
    this.#base = base;
    this.plan = plan;
  }

  get base(): LiveModule {
    return this.#base;
  }

  override get children(): ReadonlyMap<string, LiveModule> {
    this.#materialize();
    return super.children;
  }

  override setChild(name: string, child: LiveModule): void {
    this.#materialize();
    if (name === "base_layer") this.#base = child;
    super.setChild(name, child);
  }

  /** Have the inner modules been made, so that they may have been changed? */
  get isMaterialized(): boolean {
    return this.#materialized;
  }

  override attribute(name: string): LiveModule | LiveParameter | undefined {
    if (name === "weight" || name === "bias") return baseLayer(this).attribute(name);
    const own = super.attribute(name);
    if (own !== undefined) return own;
    if (name !== "out_proj" || this.plan.spec.layer !== "MultiheadAttention") return undefined;
    const projection = this.#base.children.get("out_proj");
    return projection === undefined ? undefined : baseLayer(projection);
  }

  override emptyCopy(): LiveModule {
    const copy = new LoraModule(this.#base, this.plan);
    copy.#materialized = true;
    return copy;
  }

  #materialize(): void {
    if (this.#materialized) return;
    this.#materialized = true;
    super.setChild("base_layer", this.#base);
    const dropout = new LiveModule("ModuleDict", "moduledict");
    const { dropsOut } = this.plan.spec;
    dropout.setChild(
      "default",
      new LiveModule(dropsOut ? "Dropout" : "Identity", dropsOut ? "dropout" : "identity"),
    );
    super.setChild("lora_dropout", dropout);
    for (const name of ["lora_A", "lora_B"]) super.setChild(name, new LiveModule("ModuleDict", "moduledict"));
    for (const name of ["lora_embedding_A", "lora_embedding_B"])
      super.setChild(name, new LiveModule("ParameterDict", "parameterdict"));
    super.setChild("lora_magnitude_vector", new LiveModule("ModuleDict", "moduledict"));
    for (const { path, shape, isTrained } of this.plan.tensors) {
      const parameter = new LiveParameter(shape, isTrained);
      const [part, adapterName, field] = path.split(".") as [string, string, string?];
      const dict = super.children.get(part)!;
      if (field === undefined) dict.setParameter(adapterName, parameter);
      else {
        const inner = dict.children.get(adapterName) ?? new LiveModule("Linear", this.#innerKind());
        inner.setParameter(field, parameter);
        dict.setChild(adapterName, inner);
      }
    }
  }

  #innerKind(): LiveKind {
    const { layer } = this.plan.spec;
    return layer === "Conv1d" || layer === "Conv2d" || layer === "Conv3d"
      ? (layer.toLowerCase() as LiveKind)
      : "linear";
  }
}

/** `modules_to_save`: trains a copy of the module. Attributes come from the copy. */
export class SavedWrapper extends LiveModule {
  constructor() {
    super("ModulesToSaveWrapper", "saved-wrapper");
  }
  get original(): LiveModule {
    return this.children.get("original_module")!;
  }
  get copy(): LiveModule {
    return this.children.get("modules_to_save")!.children.get("default")!;
  }
  override attribute(name: string): LiveModule | LiveParameter | undefined {
    return super.attribute(name) ?? this.copy.attribute(name);
  }
  override emptyCopy(): LiveModule {
    return new SavedWrapper();
  }
}

/** `trainable_token_indices`: trains some rows. Only the weight is forwarded. */
export class TokenWrapper extends LiveModule {
  readonly isTied: boolean;
  constructor(isTied: boolean) {
    super("TrainableTokensWrapper", "token-wrapper");
    this.isTied = isTied;
  }
  get layer(): LiveModule {
    return this.children.get("token_adapter")!;
  }
  override attribute(name: string): LiveModule | LiveParameter | undefined {
    if (name === "original_module") return this.layer.children.get("base_layer");
    return super.attribute(name) ?? (name === "weight" ? baseLayer(this.layer).attribute(name) : undefined);
  }
  override emptyCopy(): LiveModule {
    return new TokenWrapper(this.isTied);
  }
}

/** PeftModel and LoraModel, which forward what they lack to the model inside. */
export class PeftWrapper extends LiveModule {
  readonly #inner: string;
  constructor(className: string, innerName: string, inner: LiveModule) {
    super(className, "peft-model");
    this.#inner = innerName;
    this.setChild(innerName, inner);
  }
  override attribute(name: string): LiveModule | LiveParameter | undefined {
    return super.attribute(name) ?? this.children.get(this.#inner)!.attribute(name);
  }
}

/** The module below all layers that have a `base_layer`; PEFT's `get_base_layer`. */
export function baseLayer(module: LiveModule): LiveModule {
  let current = module;
  while (true) {
    const next = current instanceof LoraModule ? current.base : current.attribute("base_layer");
    if (!(next instanceof LiveModule)) return current;
    current = next;
  }
}
