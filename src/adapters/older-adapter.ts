import { readTensorAsFloat32, type TensorEntry } from "../checkpoint/index.ts";
import { AdapterError, closest, listProblems } from "../errors.ts";
import type { OlderLayout } from "../nn/index.ts";
import { type ModuleTree, type Selection, selectTargets } from "../selection/index.ts";
import { type Tensor, zeros } from "../tensor/index.ts";
import type { LoraConfig } from "./config.ts";
import { KEY_PREFIX } from "./lora-layer.ts";
import { olderTree } from "./older-tree.ts";
import { toNativeConfig, toOlderConfig } from "./translate.ts";

/** Under which names an adapter is saved: those that the model has, or those of an older class (`"remote-code"`). */
export type Naming = "native" | (string & {});

/** @throws AdapterError `unknown-naming` if the model has no such names. */
export function layoutFor(
  naming: Naming,
  { olderLayout, modelType }: { olderLayout: OlderLayout | undefined; modelType: string },
): OlderLayout | undefined {
  if (naming === "native") return undefined;
  if (naming === olderLayout?.naming) return olderLayout;
  const known = ["native", ...(olderLayout ? [olderLayout.naming] : [])];
  throw new AdapterError(
    `${modelType} has no names called "${naming}"${closest(naming, known)}. Names are ${known.map((name) => `"${name}"`).join(" or ")}.`,
    { code: "unknown-naming", details: { naming, known, modelType } },
  );
}

/** The same path under the other names; undefined if it has none, or the tensor would be another one there. */
const renamed = (path: string, rename: (path: string) => string | undefined): string | undefined => {
  const other = rename(path);
  return other !== undefined && lastSegment(other) === lastSegment(path) ? other : undefined;
};
const lastSegment = (path: string): string => path.slice(path.lastIndexOf(".") + 1);

/**
 * Whether the keys of a saved adapter have the older names.
 * @throws AdapterError `mixed-names` if some have and others have not.
 */
export function hasOlderKeys(keys: Iterable<string>, layout: OlderLayout, file: string): boolean {
  const paths = [...keys].map(pathOf);
  const older = paths.filter(
    (path) => layout.zeros.has(path) || renamed(path, layout.toNative) !== undefined,
  );
  if (older.length === 0) return false;
  const known = new Set(older);
  const others = paths.filter((path) => !known.has(path));
  if (others.length === 0) return true;
  const native = others.filter((path) => layout.toOlder(path) !== undefined);
  const listed = (some: readonly string[]): string => listProblems(some.map((path) => `"${path}"`));
  throw new AdapterError(
    native.length > 0
      ? `${file}: some tensors have the names of ${layout.owner} (${listed(older.slice(0, 3))}), others those of transformers' own class (${listed(native.slice(0, 3))}). An adapter has one or the other: rename one part.`
      : `${file}: most tensors have the names of ${layout.owner}, but some are in neither layout of the model: ${listed(others)}. Was the adapter trained on another model?`,
    { code: native.length > 0 ? "mixed-names" : "adapter-does-not-fit", details: { file, native, others } },
  );
}

const pathOf = (key: string): string => (key.startsWith(KEY_PREFIX) ? key.slice(KEY_PREFIX.length) : key);

/**
 * An adapter that was made with the older class, as one of the model.
 * @throws AdapterError, SelectionError where PEFT would not have made such an adapter, or there is none here.
 */
export async function nativeAdapter(
  { config, tensors, file }: { config: LoraConfig; tensors: ReadonlyMap<string, TensorEntry>; file: string },
  tree: ModuleTree,
  layout: OlderLayout,
): Promise<{ config: LoraConfig; tensors: Map<string, TensorEntry> }> {
  const native = new Map<string, TensorEntry>();
  for (const [key, entry] of tensors) {
    const path = pathOf(key);
    if (layout.zeros.has(path)) await refuseValues(entry, file);
    else native.set(KEY_PREFIX + renamed(path, layout.toNative)!, entry);
  }
  return { config: toNativeConfig(config, tree, layout).config, tensors: native };
}

async function refuseValues(entry: TensorEntry, file: string): Promise<void> {
  const { data } = await readTensorAsFloat32(entry);
  if (data.every((value) => value === 0)) return;
  throw new AdapterError(
    `${file}: "${entry.name}" is not zero, and the model has no such tensor. Load the adapter with the class that it was trained with.`,
    { code: "adapter-does-not-fit", details: { file, key: entry.name } },
  );
}

/** An adapter as it is saved. */
export type SavedAdapter = {
  readonly config: LoraConfig;
  readonly selection: Selection;
  readonly tensors: ReadonlyMap<string, Tensor | TensorEntry>;
};

/**
 * An adapter of the model as one of the older class.
 * @param tree the model's, without the adapter.
 * @param tensorOf the tensor of a native key; undefined if there is none.
 * @param original the configuration that the adapter had under the older names, if it was loaded from there.
 * @throws AdapterError `no-older-name` listing what has none. @throws as `toOlderConfig`.
 */
export function olderAdapter(
  { config, tensorOf }: { config: LoraConfig; tensorOf: (key: string) => Tensor | TensorEntry | undefined },
  tree: ModuleTree,
  layout: OlderLayout,
  original?: LoraConfig,
): SavedAdapter {
  const made = original ?? toOlderConfig(config, tree, layout).config;
  const selection = selectTargets(olderTree(tree, layout), made.with({ inferenceMode: false }).toSelection());
  const tensors = new Map<string, Tensor | TensorEntry>();
  const missing: string[] = [];
  for (const [key, shape] of selection.stateDict) {
    const path = pathOf(key);
    const native = renamed(path, layout.toNative);
    const tensor = layout.zeros.has(path) ? zeros("float32", shape) : native && tensorOf(KEY_PREFIX + native);
    if (tensor === undefined) missing.push(path);
    else tensors.set(key, tensor as Tensor | TensorEntry);
  }
  if (missing.length > 0)
    throw new AdapterError(
      `These tensors of the adapter under the names of ${layout.owner} are not tensors of the model: ${listProblems(missing)}. Keep the native names.`,
      { code: "no-older-name", details: { names: missing, naming: layout.naming } },
    );
  const isOlder = made.autoMapping !== null && layout.isAutoMapping(made.autoMapping);
  return {
    // Where the older class lies is not known but from the adapter itself.
    config: made.with({
      ...selection.config,
      initLoraWeights: config.initLoraWeights,
      inferenceMode: true,
      autoMapping: isOlder ? made.autoMapping : null,
    }),
    selection,
    tensors,
  };
}
