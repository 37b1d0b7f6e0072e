import { failure } from "../failure.ts";
import type { ModuleTree } from "../tree.ts";
import { LiveModule, type LiveParameter, SavedWrapper } from "./live.ts";
import type { ResolvedConfig } from "./options.ts";
import { deepCopy, setRequiresGrad } from "./traverse.ts";
import { inputEmbedding } from "./tying.ts";
import { refuseContainers, type WrapContext, type Wrapping, wrapModules } from "./wrap.ts";

/**
 * Wraps what `modulesToSave` names, so that a copy of each is trained and saved; then the modules tied to a saved
 * input embedding, which share the copy's weight.
 * @param root where the names start: the model, or the PEFT model around it.
 */
export function wrapSaved(config: ResolvedConfig, root: LiveModule, context: WrapContext): void {
  if (config.modulesToSave !== null) wrapModules(root, [...config.modulesToSave], savedWrapping(context));
}

/** @throws SelectionError where the input embedding is not saved after all. */
export function wrapTied(
  config: ResolvedConfig,
  tree: ModuleTree,
  root: LiveModule,
  context: WrapContext,
): void {
  if (config.modulesToTie === null) return;
  const source = inputEmbedding(tree, root);
  const weight = source instanceof SavedWrapper ? source.copy.parameters.get("weight") : undefined;
  if (weight === undefined)
    throw failure(
      "inject",
      "AttributeError",
      "python-internal",
      `With ensureWeightTying, the input embedding "${tree.inputEmbeddings}" must be saved, but it is not wrapped.`,
    );
  wrapModules(root, config.modulesToTie, savedWrapping(context, weight));
}

function savedWrapping({ isInference }: WrapContext, weight?: LiveParameter): Wrapping<SavedWrapper> {
  const refresh = (wrapper: SavedWrapper): void => {
    setRequiresGrad(wrapper.original, false);
    setRequiresGrad(wrapper.copy, !isInference);
  };
  return {
    isWrapper: (module) => module instanceof SavedWrapper,
    refresh,
    make(target, name) {
      const wrapper = new SavedWrapper();
      const copies = new LiveModule("ModuleDict", "moduledict");
      wrapper.setChild("original_module", target);
      wrapper.setChild("modules_to_save", copies);
      copies.setChild("default", weight === undefined ? deepCopy(target) : tiedLinear(weight));
      refuseContainers(target, name, "modulesToSave", "cannot-save-module-type");
      refresh(wrapper);
      return wrapper;
    },
  };
}

/** A tied module is saved as a Linear without bias that shares the embedding's weight. */
function tiedLinear(weight: LiveParameter): LiveModule {
  const linear = new LiveModule("Linear", "linear");
  linear.setParameter("weight", weight);
  return linear;
}
