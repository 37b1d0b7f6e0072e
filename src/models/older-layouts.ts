import type { OlderLayout } from "../nn/index.ts";
import { florence2OlderLayout } from "./florence2-older-modules.ts";

const layouts: Readonly<Record<string, OlderLayout>> = { florence2: florence2OlderLayout };

/**
 * The older layout of a model of which only the module tree is known; undefined if its type has none, or the tree is in
 * the older layout itself.
 */
export function olderLayoutOf({
  modelType,
  modules,
}: {
  readonly modelType: string;
  readonly modules: readonly { readonly name: string }[];
}): OlderLayout | undefined {
  const layout = Object.hasOwn(layouts, modelType) ? layouts[modelType] : undefined;
  return layout && modules.some(({ name }) => layout.toOlder(name) !== undefined) ? layout : undefined;
}
