import type { LoraConfig } from "../adapters/config.ts";
import { olderTree } from "../adapters/older-tree.ts";
import { AdapterError, isGraftError, listProblems } from "../errors.ts";
import { olderLayoutOf, olderNamingOf } from "../models/older-layouts.ts";
import type { OlderLayout } from "../nn/index.ts";
import { type ModuleTree, type Selection, type Synthesis, selectTargets } from "../selection/index.ts";
import { type AdapterRequest, type ResolvedAdapter, resolveAdapter } from "./adapter-request.ts";
import { choice } from "./flags.ts";

/** Under which names modules are shown, and adapters written. */
export const namingFlag = {
  naming: choice(
    "Names to show and write: native, as the class in transformers has them, or remote-code, as the code that came with older Florence-2 checkpoints has them. Default: native.",
    ["native", "remote-code"],
  ),
};

export type Naming = "native" | "remote-code";

/** A request for one model, under one naming. */
export type NamedAdapter = {
  readonly tree: ModuleTree;
  readonly adapter: ResolvedAdapter;
  /** Where the request had to be put into other words: what they mean on deeper models. */
  readonly deeper?: Synthesis["deeper"];
};

/** A request for one model, under the native names, and under those that were asked for. */
export type ResolvedNaming = {
  readonly native: NamedAdapter;
  readonly shown: NamedAdapter;
  /** That of `shown`; undefined for the native names. */
  readonly layout: OlderLayout | undefined;
};

/**
 * The layout that a naming stands for; undefined for "native".
 * @throws AdapterError `unknown-naming` if the model has no such names.
 */
export function layoutNamed(naming: Naming, tree: ModuleTree): OlderLayout | undefined {
  if (naming === "native" || naming === olderNamingOf(tree)) return undefined;
  const layout = olderLayoutOf(tree);
  if (layout?.naming === naming) return layout;
  throw new AdapterError(
    `--naming ${naming}: ${tree.name} (${tree.modelType}) has no such names; Florence-2's native class has. Leave it out.`,
    { code: "unknown-naming", details: { naming, modelType: tree.modelType } },
  );
}

/** The tree under a naming. @throws AdapterError `unknown-naming`. */
export function treeNamed(naming: Naming, tree: ModuleTree): ModuleTree {
  const layout = layoutNamed(naming, tree);
  return layout ? olderTree(tree, layout) : tree;
}

/**
 * As `resolveAdapter`, for a request that may have the native names of a model or those of its older class. What has older
 * names only is brought into the native ones, with a warning; what is to be shown under older names, into those.
 * @throws SelectionError where the request selects nothing under either names.
 * @throws AdapterError `unknown-naming`; `no-older-name`, `no-native-name` for modules that one class lacks.
 */
export async function resolveNaming(
  request: AdapterRequest,
  tree: ModuleTree,
  naming: Naming = "native",
): Promise<ResolvedNaming> {
  const asked = layoutNamed(naming, tree);
  const layout = olderLayoutOf(tree);
  if (layout === undefined) {
    const native = { tree, adapter: await resolveAdapter(request, tree) };
    return { native, shown: native, layout: undefined };
  }
  const { autoMapping } = request.config;
  const saysOlder = autoMapping !== null && layout.isAutoMapping(autoMapping);
  const given = saysOlder ? undefined : await attempt(request, tree);
  const older = given?.adapter ? undefined : await attempt(request, olderTree(tree, layout));
  if (older?.adapter) return fromOlder(older.adapter, tree, layout, asked);
  // Neither: explained under the names that are shown.
  if (!given?.adapter) {
    const failed = asked ? (older ?? given) : (given ?? older);
    if (failed?.resolved === undefined) throw failed!.failure;
    const shown = { tree: asked ? olderTree(tree, layout) : tree, adapter: failed.resolved };
    return { native: { tree, adapter: failed.resolved }, shown, layout: asked };
  }
  const unused = unusedNames(given.adapter.config, tree, layout);
  const adapter = { ...given.adapter, warnings: [...given.adapter.warnings, ...unused] };
  const native = { tree, adapter };
  if (asked === undefined) return { native, shown: native, layout: undefined };
  const { toOlderConfig } = await import("../adapters/translate.ts");
  const { config, deeper } = toOlderConfig(adapter.config, tree, layout);
  const shown = { tree: olderTree(tree, layout), adapter: { config, warnings: adapter.warnings }, deeper };
  return { native, shown, layout };
}

type Attempt = {
  /** Set where it selects something. */
  readonly adapter?: ResolvedAdapter;
  /** Set where PEFT refuses it, which can still be explained. */
  readonly resolved?: ResolvedAdapter;
  readonly failure?: unknown;
};

async function attempt(request: AdapterRequest, tree: ModuleTree): Promise<Attempt> {
  let resolved: ResolvedAdapter | undefined;
  try {
    resolved = await resolveAdapter(request, tree);
    selectionOf({ tree, adapter: resolved });
    return { adapter: resolved };
  } catch (failure) {
    if (!isGraftError(failure)) throw failure;
    return { failure, ...(resolved && { resolved }) };
  }
}

/** What an adapter selects. */
export const selectionOf = ({ tree, adapter: { compiled, config } }: NamedAdapter): Selection =>
  compiled?.selection ?? selectTargets(tree, config.toSelection());

async function fromOlder(
  adapter: ResolvedAdapter,
  tree: ModuleTree,
  layout: OlderLayout,
  asked: OlderLayout | undefined,
): Promise<ResolvedNaming> {
  const { toNativeConfig } = await import("../adapters/translate.ts");
  const { config, deeper, selection } = toNativeConfig(adapter.config, tree, layout);
  const count = selection.targets.length;
  const warning = {
    code: "older-names",
    message:
      `the configuration is written in the names of ${layout.owner}; it is applied to ` +
      `${count === 1 ? "the module" : `the ${count} modules`} that it selects there, under their native names.`,
  };
  const native = { tree, adapter: { config, warnings: [...adapter.warnings, warning] }, deeper };
  if (asked === undefined) return { native, shown: native, layout: undefined };
  return { native, shown: { tree: olderTree(tree, layout), adapter }, layout };
}

/** Names in a list that only the older class has: what they are meant for is left out. */
function unusedNames(
  { targetModules }: LoraConfig,
  tree: ModuleTree,
  layout: OlderLayout,
): { code: string; message: string }[] {
  if (targetModules === null || typeof targetModules === "string") return [];
  const older = olderTree(tree, layout);
  const hits = ({ modules }: ModuleTree, entry: string): string[] =>
    modules.flatMap(({ name }) => (name === entry || name.endsWith(`.${entry}`) ? [name] : []));
  const unused = [...targetModules].flatMap((entry) => {
    const there = hits(tree, entry).length > 0 ? [] : hits(older, entry);
    const native = new Set(there.flatMap((name) => layout.toNative(name)?.split(".").slice(-1) ?? []));
    return native.size > 0 ? [`${JSON.stringify(entry)} (here ${[...native].join(", ")})`] : [];
  });
  if (unused.length === 0) return [];
  const message =
    `targetModules: ${listProblems(unused)} ${unused.length === 1 ? "is a name" : "are names"} in ${layout.owner} only: ` +
    "beside native names nothing is taken for them. Name all modules in one of the two ways.";
  return [{ code: "older-names-unused", message }];
}
