import { failure, quoteNames, type Warnings } from "../failure.ts";
import { leafOf } from "../python.ts";
import { type LiveModule, LoraModule } from "./live.ts";
import { getSubmodule, namedModules } from "./traverse.ts";

export type WrapContext = { readonly isInference: boolean; readonly warnings: Warnings };

/** How a module is wrapped. */
export type Wrapping<W extends LiveModule> = {
  readonly isWrapper: (module: LiveModule) => module is W;
  readonly make: (target: LiveModule, name: string) => W;
  /** The module was found again: sets what is trained. */
  readonly refresh: (wrapper: W) => void;
};

/** Last name parts of what a LoRA layer holds; an entry can reach into one only through the end of such a part. */
const innerParts = [
  "base_layer",
  "lora_dropout",
  "lora_A",
  "lora_B",
  "lora_embedding_A",
  "lora_embedding_B",
  "lora_magnitude_vector",
  "default",
];

/**
 * Wraps every module whose path ends with one of `entries`, with no regard to dots and each path of a tied module on
 * its own. A module inside one that is wrapped already counts as wrapped.
 * @param isStrict fail if nothing was found.
 * @throws SelectionError where a match is a container, a LoRA layer or a part of one.
 * Source: PEFT 0.21 `utils/other.py`, `_set_trainable` and the wrappers.
 */
export function wrapModules<W extends LiveModule>(
  root: LiveModule,
  entries: readonly string[],
  wrapping: Wrapping<W>,
  isStrict = false,
): void {
  if (entries.length === 0) return;
  const found = new Set<string>();
  const reachesInside = entries.some((entry) => innerParts.some((part) => part.endsWith(leafOf(entry))));
  const enter = (module: LiveModule): boolean =>
    reachesInside ||
    !(module instanceof LoraModule) ||
    module.isMaterialized ||
    module.base.children.size > 0;
  for (const { name } of namedModules(root, { duplicates: true, enter })) {
    if (!entries.some((entry) => name.endsWith(entry))) continue;
    wrapOne(root, name, wrapping);
    found.add(leafOf(name));
  }
  if (isStrict && found.size === 0)
    throw failure(
      "inject",
      "ValueError",
      "no-match",
      `No module's name ends with ${quoteNames(entries)}, which trainableTokenIndices names. ` +
        "Use the name of the embedding, or a list of indices for the input embedding.",
      { entries },
    );
}

function wrapOne<W extends LiveModule>(root: LiveModule, name: string, wrapping: Wrapping<W>): void {
  const parts = name.split(".");
  const parent = getSubmodule(root, parts.slice(0, -1).join("."));
  const target = getSubmodule(root, name);
  const grandparent = getSubmodule(root, parts.slice(0, -2).join("."));
  if (parent === undefined || target === undefined)
    throw failure(
      "inject",
      "AttributeError",
      "other",
      `"${name}" is inside a module that is wrapped already and cannot be reached. Name only one of the two.`,
      { module: name },
    );
  if (grandparent !== undefined && isTunerLayer(grandparent))
    throw failure(
      "inject",
      "ValueError",
      "target-inside-saved-module",
      `"${name}" is a part of an adapter layer and cannot be saved or trained as a whole. ` +
        "Use a longer module name.",
      { module: name },
    );
  if (grandparent !== undefined && wrapping.isWrapper(grandparent)) wrapping.refresh(grandparent);
  else if (wrapping.isWrapper(target)) wrapping.refresh(target);
  else parent.setChild(parts[parts.length - 1]!, wrapping.make(target, name));
}

/** LoRA layers and the layer inside a token wrapper. */
export const isTunerLayer = (module: LiveModule): boolean =>
  module.kind === "lora" || module.kind === "token-layer";

/** @throws SelectionError (Python: TypeError) for lists, dicts and adapter layers, which have no forward of their own. */
export function refuseContainers(target: LiveModule, name: string, option: string, code: string): void {
  const isContainer = ["modulelist", "moduledict", "parameterdict"].includes(target.kind);
  if (!isContainer && !isTunerLayer(target)) return;
  const what = isContainer ? `a ${target.className}` : "an adapter layer already";
  throw failure(
    "inject",
    "TypeError",
    code,
    `${option} reaches "${name}", which is ${what} and cannot be wrapped. Entries match the end of a name, so use a ` +
      "longer one, or exclude the module from the targets.",
    { module: name, className: target.className },
  );
}
