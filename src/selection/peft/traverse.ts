import { LiveModule, LiveParameter } from "./live.ts";

/** Calls `visit` with every parameter object below `module` once. */
export function eachParameter(module: LiveModule, visit: (parameter: LiveParameter) => void): void {
  const modules = new Set<LiveModule>();
  const parameters = new Set<LiveParameter>();
  const take = (parameter: LiveParameter): void => {
    if (parameters.has(parameter)) return;
    parameters.add(parameter);
    visit(parameter);
  };
  const walk = (current: LiveModule): void => {
    if (modules.has(current)) return;
    modules.add(current);
    for (const parameter of current.parameters.values()) take(parameter);
    for (const child of current.children.values()) walk(child);
  };
  walk(module);
}

/** A module, its dotted name and the module that holds it (null for the root). */
export type NamedModule = {
  readonly name: string;
  readonly module: LiveModule;
  readonly parent: LiveModule | null;
};

/** A module, its dotted name, and whether the walk is here for the first time (named_modules lists it then). */
export type Visit = NamedModule & { readonly isFirst: boolean };

/**
 * PyTorch's `named_modules`, root first. With duplicates (`remove_duplicate=False`) every path is listed, and
 * `isFirst` tells the ones that a walk without duplicates would list.
 * @param enter false to leave out everything below a module.
 */
export function namedModules(
  root: LiveModule,
  { duplicates, enter = () => true }: { duplicates: boolean; enter?: (module: LiveModule) => boolean },
): Visit[] {
  const seen = new Set<LiveModule>();
  const visits: Visit[] = [];
  const walk = (
    module: LiveModule,
    name: string,
    parent: LiveModule | null,
    isInsideFirst: boolean,
  ): void => {
    const isFirst = isInsideFirst && !seen.has(module);
    if (!isFirst && !duplicates) return;
    seen.add(module);
    visits.push({ name, module, parent, isFirst });
    if (!enter(module)) return;
    for (const [key, child] of module.children)
      walk(child, name === "" ? key : `${name}.${key}`, module, isFirst);
  };
  walk(root, "", null, true);
  return visits;
}

/** PyTorch's `named_parameters` without duplicates, in order. */
export function namedParameters(root: LiveModule): [string, LiveParameter][] {
  const seen = new Set<LiveParameter>();
  const out: [string, LiveParameter][] = [];
  for (const { name, module } of namedModules(root, { duplicates: false }))
    for (const [own, parameter] of module.parameters) {
      if (seen.has(parameter)) continue;
      seen.add(parameter);
      out.push([name === "" ? own : `${name}.${own}`, parameter]);
    }
  return out;
}

/**
 * Python's copy.deepcopy of a module: new modules and parameters, sharing inside the copy as in the original.
 */
export function deepCopy(module: LiveModule): LiveModule {
  const modules = new Map<LiveModule, LiveModule>();
  const parameters = new Map<LiveParameter, LiveParameter>();
  const copyParameter = (parameter: LiveParameter): LiveParameter => {
    let copy = parameters.get(parameter);
    if (copy === undefined) {
      copy = new LiveParameter(parameter.shape, parameter.requiresGrad);
      parameters.set(parameter, copy);
    }
    return copy;
  };
  const copyModule = (source: LiveModule): LiveModule => {
    const known = modules.get(source);
    if (known !== undefined) return known;
    const children = source.children;
    const copy = source.emptyCopy();
    copy.clearParameters();
    modules.set(source, copy);
    for (const [name, parameter] of source.parameters) copy.setParameter(name, copyParameter(parameter));
    for (const [name, shape] of source.buffers) copy.setBuffer(name, shape);
    for (const [name, child] of children) copy.setChild(name, copyModule(child));
    return copy;
  };
  return copyModule(module);
}

/**
 * PyTorch's `get_submodule`, with the attribute access of PEFT's wrappers.
 * @returns undefined where Python would raise AttributeError.
 */
export function getSubmodule(root: LiveModule, name: string): LiveModule | undefined {
  let current = root;
  if (name === "") return current;
  for (const part of name.split(".")) {
    const next = current.attribute(part);
    if (!(next instanceof LiveModule)) return undefined;
    current = next;
  }
  return current;
}

/** The first name of `module` below `root`, as named_modules lists it. */
export function nameOfModule(root: LiveModule, module: LiveModule): string | undefined {
  const seen = new Set<LiveModule>();
  const walk = (current: LiveModule, name: string): string | undefined => {
    if (current === module) return name;
    if (seen.has(current)) return undefined;
    seen.add(current);
    for (const [key, child] of current.children) {
      const found = walk(child, name === "" ? key : `${name}.${key}`);
      if (found !== undefined) return found;
    }
    return undefined;
  };
  return walk(root, "");
}

/** Sets requires_grad of every parameter below `module`. */
export function setRequiresGrad(module: LiveModule, value: boolean): void {
  eachParameter(module, (parameter) => {
    parameter.requiresGrad = value;
  });
}
