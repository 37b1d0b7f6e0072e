import type { OlderLayout } from "../nn/index.ts";
import { florence2OlderLayout } from "./florence2-older-modules.ts";

const layouts: Readonly<Record<string, OlderLayout>> = { florence2: florence2OlderLayout };

/**
 * The older layout of a model of which only the module tree is known; undefined if its type has none, or the tree is in
 * the older layout itself.
 */
export function olderLayoutOf(tree: NamedModules): OlderLayout | undefined {
  const layout = layoutOfType(tree);
  return layout && tree.modules.some(({ name }) => layout.toOlder(name) !== undefined) ? layout : undefined;
}

/** The naming of a tree that is in an older layout itself: modules of a checkpoint that only its own code can build. */
export function olderNamingOf(tree: NamedModules): string | undefined {
  const layout = layoutOfType(tree);
  return layout?.naming && !olderLayoutOf(tree) && tree.modules.some(({ name }) => layout.toNative(name))
    ? layout.naming
    : undefined;
}

type NamedModules = { readonly modelType: string; readonly modules: readonly { readonly name: string }[] };

const layoutOfType = ({ modelType }: NamedModules): OlderLayout | undefined =>
  Object.hasOwn(layouts, modelType) ? layouts[modelType] : undefined;
