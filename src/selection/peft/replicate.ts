import { failure } from "../failure.ts";
import { LiveModule } from "./live.ts";
import { deepCopy } from "./traverse.ts";

/**
 * Rebuilds the stack of layers: for each range `[start, end)`, copies of those layers that share their parameters
 * with the originals (LoRA added later is each copy's own).
 * @throws SelectionError where no stack is found, or a range names a layer that does not exist.
 * Source: PEFT 0.21 `replicate_layers`.
 */
export function replicateLayers(root: LiveModule, ranges: readonly (readonly [number, number])[]): void {
  const { parent, name, layers } = findStack(root);
  const copies = new LiveModule("ModuleList", "modulelist");
  const originals = [...layers.children.values()];
  let next = 0;
  for (const [start, end] of ranges)
    for (let i = start; i < end; i++) {
      const layer = originals[i < 0 ? i + originals.length : i];
      if (layer === undefined)
        throw failure(
          "inject",
          "IndexError",
          "other",
          `layerReplication [${start}, ${end}] names layer ${i}, but the model has ${originals.length} layers.`,
          { layer: i, layers: originals.length },
        );
      copies.setChild(String(next++), copySharing(layer));
    }
  parent.setChild(name, copies);
}

function copySharing(layer: LiveModule): LiveModule {
  const copy = deepCopy(layer);
  const share = (source: LiveModule, target: LiveModule): void => {
    for (const [name, parameter] of source.parameters) target.setParameter(name, parameter);
    for (const [name, child] of source.children) share(child, target.children.get(name)!);
  };
  share(layer, copy);
  return copy;
}

function findStack(root: LiveModule): { parent: LiveModule; name: string; layers: LiveModule } {
  let model = root;
  for (let inner = model.children.get("model"); inner !== undefined; inner = model.children.get("model"))
    model = inner;
  model = model.children.get("bert") ?? model;
  const encoder = model.children.get("encoder");
  const [parent, name] = model.children.has("layers")
    ? [model, "layers"]
    : encoder?.children.has("layer")
      ? [encoder, "layer"]
      : [model, "h"];
  const layers = parent.children.get(name);
  if (layers === undefined || layers.kind !== "modulelist")
    throw failure(
      "inject",
      "ValueError",
      "no-layer-stack-to-replicate",
      "layerReplication needs a stack of layers called layers, encoder.layer or h (Llama, BERT, Falcon). " +
        "This model has none; leave layerReplication out.",
    );
  return { parent, name, layers };
}
