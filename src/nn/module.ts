import { GraphError } from "../errors.ts";
import type { Value } from "../graph/index.ts";
import { ModuleBuffer } from "./buffer.ts";
import { Parameter } from "./parameter.ts";

/** What a module is to layer selection; the names of PEFT's dispatch and of the skeleton files. */
export type ModuleKind =
  | "linear"
  | "conv2d"
  | "embedding"
  | "norm"
  | "dropout"
  | "identity"
  | "modulelist"
  | "moduledict"
  | "module";

/**
 * A node of the module tree. Fields that hold modules or parameters are its children, in order of declaration, and carry
 * the checkpoint's own segment names, so that the path of a module equals its name in Hugging Face's model.
 */
export abstract class Module {
  /** Class name in the reference implementation, e.g. "LlamaAttention". */
  abstract readonly className: string;
  readonly kind: ModuleKind = "module";

  /** Direct children, by segment. */
  children(): [segment: string, child: Module][] {
    return Object.entries(this).filter((entry): entry is [string, Module] => entry[1] instanceof Module);
  }

  /** Own parameters, by segment. */
  parameters(): [segment: string, parameter: Parameter][] {
    return Object.entries(this).filter(
      (entry): entry is [string, Parameter] => entry[1] instanceof Parameter,
    );
  }

  /** Own buffers, by segment. */
  buffers(): [segment: string, buffer: ModuleBuffer][] {
    return Object.entries(this).filter(
      (entry): entry is [string, ModuleBuffer] => entry[1] instanceof ModuleBuffer,
    );
  }

  /** All modules with their paths: pre-order, this one first under "", each object once, as torch lists them. */
  *namedModules(prefix = "", seen = new Set<Module>()): Generator<[path: string, module: Module]> {
    if (seen.has(this)) return;
    seen.add(this);
    yield [prefix, this];
    for (const [segment, child] of this.children())
      yield* child.namedModules(joinPath(prefix, segment), seen);
  }

  /** All parameters with their paths; a shared one once, under its first path. */
  *namedParameters(): Generator<[path: string, parameter: Parameter]> {
    for (const [parameter, [path]] of this.parameterPaths()) yield [path, parameter];
  }

  /** All parameters, each with every path it has; a parameter that several layers share has several. */
  parameterPaths(): Map<Parameter, [first: string, ...others: string[]]> {
    const paths = new Map<Parameter, [string, ...string[]]>();
    for (const [path, module] of this.namedModules())
      for (const [segment, parameter] of module.parameters()) {
        const known = paths.get(parameter);
        if (known) known.push(joinPath(path, segment));
        else paths.set(parameter, [joinPath(path, segment)]);
      }
    return paths;
  }

  /** All buffers with their paths. */
  *namedBuffers(): Generator<[path: string, buffer: ModuleBuffer]> {
    for (const [path, module] of this.namedModules())
      for (const [segment, buffer] of module.buffers()) yield [joinPath(path, segment), buffer];
  }

  /** The module at a dotted path. @throws GraphError if there is none. */
  getModule(path: string): Module {
    let module: Module = this;
    for (const segment of path === "" ? [] : path.split(".")) {
      const child = module.child(segment);
      if (!child)
        throw new GraphError(`There is no module "${path}".`, { code: "no-such-module", details: { path } });
      module = child;
    }
    return module;
  }

  /** Puts another module in the place of the one at `path`. */
  replaceModule(path: string, replacement: Module): void {
    const at = path.lastIndexOf(".");
    this.getModule(path);
    this.getModule(path.slice(0, Math.max(at, 0))).setChild(path.slice(at + 1), replacement);
  }

  protected child(segment: string): Module | undefined {
    const value = (this as unknown as Record<string, unknown>)[segment];
    return value instanceof Module ? value : undefined;
  }

  protected setChild(segment: string, module: Module): void {
    (this as unknown as Record<string, unknown>)[segment] = module;
  }
}

/** A module from one value to one value: a linear layer, whatever wraps it, an activation. */
export abstract class Layer extends Module {
  abstract forward(x: Value): Value;
}

/** Numbered children. */
export class ModuleList<M extends Module> extends Module {
  override readonly className = "ModuleList";
  override readonly kind = "modulelist";
  readonly items: M[];

  constructor(items: M[]) {
    super();
    this.items = items;
  }

  override children(): [string, Module][] {
    return this.items.map((item, i) => [String(i), item]);
  }

  protected override child(segment: string): Module | undefined {
    return this.items[Number(segment)];
  }

  protected override setChild(segment: string, module: Module): void {
    this.items[Number(segment)] = module as M;
  }
}

/** Children by name, for adapters: `lora_A.default`. */
export class ModuleDict<M extends Module> extends Module {
  override readonly className = "ModuleDict";
  override readonly kind = "moduledict";
  readonly items = new Map<string, M>();

  override children(): [string, Module][] {
    return [...this.items];
  }

  protected override child(segment: string): Module | undefined {
    return this.items.get(segment);
  }

  protected override setChild(segment: string, module: Module): void {
    this.items.set(segment, module as M);
  }
}

const joinPath = (prefix: string, segment: string): string =>
  prefix === "" ? segment : `${prefix}.${segment}`;
