import type { ModuleInfo } from "../tree.ts";

const known = new WeakMap<readonly ModuleInfo[], Float64Array>();

/** How many parameters each module has of its own, tied ones included; counted once. */
export function ownSizes(modules: readonly ModuleInfo[]): Float64Array {
  let sizes = known.get(modules);
  if (sizes === undefined) {
    sizes = new Float64Array(modules.length);
    for (let i = 0; i < modules.length; i++) {
      const { parameters } = modules[i]!;
      let own = 0;
      for (let p = 0; p < parameters.length; p++) {
        const shape = parameters[p]![1];
        let size = 1;
        for (let d = 0; d < shape.length; d++) size *= shape[d]!;
        own += size;
      }
      sizes[i] = own;
    }
    known.set(modules, sizes);
  }
  return sizes;
}
