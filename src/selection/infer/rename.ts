import { basePrefix, type Conversion, conversionOf, type ExpertNames, isHeadClass } from "./conversions.ts";
import { architectureOf, type InferWarning, isObject, type RawConfig, type TensorInfo } from "./types.ts";

/** Tensors under the names that they have in the model, once transformers has loaded it. */
export type Renamed = { readonly tensors: readonly TensorInfo[]; readonly warnings: readonly InferWarning[] };

/** Names of PyTorch before 1.0, and weight norm as it was before parametrizations. */
const legacy: readonly (readonly [end: string, now: string])[] = [
  [".gamma", ".weight"],
  [".beta", ".bias"],
  [".weight_g", ".parametrizations.weight.original0"],
  [".weight_v", ".parametrizations.weight.original1"],
];

/** Gives the tensors the names of the loaded model, stacks experts, and says what was changed. */
export function renameTensors(tensors: readonly TensorInfo[], config: RawConfig): Renamed {
  const warnings: InferWarning[] = [];
  let current = withModernNames(tensors);
  const conversion = conversionOf(config);
  if (conversion !== undefined)
    current = convert(current, conversion, String(config["model_type"]), warnings);
  current = withPrefix(current, config, warnings);
  return { tensors: current, warnings };
}

function withModernNames(tensors: readonly TensorInfo[]): readonly TensorInfo[] {
  return tensors.some(({ name }) => modernName(name) !== name)
    ? tensors.map((tensor) => ({ ...tensor, name: modernName(tensor.name) }))
    : tensors;
}

function modernName(name: string): string {
  if (name.endsWith("weight") || name.endsWith("bias")) return name; // nearly all
  for (const [end, now] of legacy) {
    if (!name.endsWith(end)) continue;
    // `gamma` of a layer scale keeps its name; only norms were renamed.
    if ((end === ".gamma" || end === ".beta") && !/LayerNorm|layer_norm|layernorm/.test(name)) continue;
    return name.slice(0, -end.length) + now;
  }
  return name;
}

function convert(
  tensors: readonly TensorInfo[],
  { renames, experts }: Conversion,
  modelType: string,
  warnings: InferWarning[],
): readonly TensorInfo[] {
  let example: readonly [string, string] | undefined;
  let count = 0;
  const renamed =
    renames.length === 0
      ? tensors
      : tensors.map((tensor) => {
          let { name } = tensor;
          for (const [pattern, replacement] of renames) name = name.replace(pattern, replacement);
          if (name === tensor.name) return tensor;
          example ??= [tensor.name, name];
          count++;
          return { ...tensor, name };
        });
  const stacked = experts === undefined ? undefined : stackExperts(renamed, experts);
  if (stacked !== undefined) {
    const at = renamed.findIndex(({ name }) => name === stacked.example[0]);
    example = [tensors[at]!.name, stacked.example[1]];
  }
  if (count > 0 || stacked !== undefined)
    warnings.push({
      code: "renamed-tensors",
      message:
        `transformers 5 loads checkpoints of type ${modelType} into ` +
        `${stacked === undefined ? "modules of other names" : "stacked experts"}, and so they are shown: ` +
        `${shorten(example![0])} is ${shorten(example![1])} here, as PEFT sees it. Older versions keep the file's names.`,
      details: { stored: example![0], loaded: example![1] },
    });
  return stacked?.tensors ?? renamed;
}

const expertName = /^(.*\.experts)\.(0|[1-9]\d*)\.(\w+)\.weight$/;

/** Puts `experts.<i>.<name>.weight` of all experts together where every expert has the same. */
function stackExperts(
  tensors: readonly TensorInfo[],
  names: ExpertNames,
): { tensors: TensorInfo[]; example: readonly [string, string] } | undefined {
  const wanted = new Set([...names.gateUp, names.down]);
  type Found = { count: number; shape: readonly number[]; dtype: string };
  const layers = new Map<string, Map<string, Found>>();
  const rest: (TensorInfo | string)[] = [];
  let example: readonly [string, string] | undefined;
  for (const tensor of tensors) {
    const match = tensor.name.includes(".experts.") ? expertName.exec(tensor.name) : null;
    const [, path, , leaf] = (match ?? []) as unknown as [string, string, string, string];
    if (match === null || !wanted.has(leaf) || tensor.shape.length !== 2) {
      rest.push(tensor);
      continue;
    }
    let layer = layers.get(path);
    if (layer === undefined) {
      layer = new Map();
      layers.set(path, layer);
      rest.push(path); // where the stacked ones go
    }
    const found = layer.get(leaf);
    if (found === undefined) layer.set(leaf, { count: 1, shape: tensor.shape, dtype: tensor.dtype });
    else if (found.shape[0] !== tensor.shape[0] || found.shape[1] !== tensor.shape[1]) return undefined;
    else found.count++;
    example ??= [tensor.name, `${path}.${leaf === names.down ? "down_proj" : names.gateUpName}`];
  }
  if (example === undefined) return undefined;
  const stacked: TensorInfo[] = [];
  for (const item of rest) {
    if (typeof item !== "string") {
      stacked.push(item);
      continue;
    }
    const layer = layers.get(item)!;
    const gateUp = names.gateUp.map((name) => layer.get(name));
    const down = layer.get(names.down);
    const count = down?.count;
    if (down === undefined || gateUp.some((part) => part?.count !== count)) return undefined;
    const rows = gateUp.reduce((sum, part) => sum + part!.shape[0]!, 0);
    const { dtype } = down;
    stacked.push(
      { name: `${item}.${names.gateUpName}`, shape: [count!, rows, gateUp[0]!.shape[1]!], dtype },
      { name: `${item}.down_proj`, shape: [count!, ...down.shape], dtype },
    );
  }
  return { tensors: stacked, example };
}

/** Children of a bare model at the root, as its own checkpoint has them. */
const bareRoots =
  /^(?:h|wte|wpe|word_embeddings|word_embeddings_layernorm|embed_tokens|embed_in|embeddings|layers|encoder|decoder|norm|ln_f|pooler|tokens_embed|positions_embed|final_layer_norm|stages|patch_embed)$/;

/** Adds or removes the name under which a head class holds the bare model, as from_pretrained does. */
function withPrefix(
  tensors: readonly TensorInfo[],
  config: RawConfig,
  warnings: InferWarning[],
): readonly TensorInfo[] {
  const architecture = architectureOf(config);
  if (architecture === "") return tensors;
  const prefix = basePrefix(config, architecture);
  if (prefix === undefined || isObject(config["text_config"])) return tensors;
  const start = `${prefix}.`;
  const prefixed = tensors.filter(({ name }) => name.startsWith(start)).length;
  if (isHeadClass(architecture)) {
    if (prefixed > 0) return tensors;
    let count = 0;
    const added = tensors.map((tensor) => {
      const dot = tensor.name.indexOf(".");
      if (!bareRoots.test(dot === -1 ? tensor.name : tensor.name.slice(0, dot))) return tensor;
      count++;
      return { ...tensor, name: start + tensor.name };
    });
    if (count === 0) return tensors;
    warnings.push({
      code: "prefix-added",
      message:
        `the file was saved from a bare model; ${architecture} holds it as "${prefix}", so names begin with ` +
        `"${start}" here. Loaded as a bare model (AutoModel), PEFT sees them without.`,
      details: { prefix, architecture },
    });
    return added;
  }
  if (prefixed === 0 || !/Model$/.test(architecture)) return tensors;
  const bare = tensors
    .filter(({ name }) => name.startsWith(start))
    .map((tensor) => ({ ...tensor, name: tensor.name.slice(start.length) }));
  if (!bare.every(({ name }) => bareRoots.test(name.split(".", 1)[0]!))) return tensors;
  warnings.push({
    code: "prefix-removed",
    message:
      `config.json names the bare class ${architecture}, and the file was saved from one with a head: names are shown ` +
      `without "${start}", and ${tensors.length - bare.length} tensors of the head are left out.`,
    details: { prefix, architecture },
  });
  return bare;
}

const shorten = (name: string): string =>
  name.length <= 80 ? name : `${name.slice(0, 40)}…${name.slice(-40)}`;
