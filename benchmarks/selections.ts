import { type ShapeName, shapes } from "./shapes.ts";

/** Members of an adapter_config.json. */
export type Lora = Readonly<Record<string, unknown>>;

type Config = Readonly<Record<string, unknown>>;

type Selection = { readonly title: string; readonly lora: (config: Config) => Lora };

const causal = { task_type: "CAUSAL_LM" };
const qv = { r: 8, lora_alpha: 16, target_modules: ["q_proj", "v_proj"] };
const everyLinear = { r: 16, lora_alpha: 32, target_modules: "all-linear" };

const layersOf = (config: Config): number => config["num_hidden_layers"] as number;

/** q and v of the last layers. */
function lastLayers(config: Config, count: number): Lora {
  const layers = layersOf(config);
  const last = Array.from({ length: count }, (_, i) => layers - count + i);
  return { ...qv, ...causal, layers_to_transform: last, layers_pattern: "layers" };
}

/** Modules in the last two layers of Florence-2's encoder and in all of its decoder. */
function top(config: Config, modules: string): string {
  const { encoder_layers: layers } = config["text_config"] as { encoder_layers: number };
  return `.*\\.(encoder\\.layers\\.(${layers - 2}|${layers - 1})|decoder)\\..*\\.(${modules})`;
}

const ofText: Readonly<Record<string, Selection>> = {
  "all-linear": { title: "every linear layer, r 16", lora: () => ({ ...everyLinear, ...causal }) },
  qv: { title: "q and v, r 8", lora: () => ({ ...qv, ...causal }) },
  "last-quarter": {
    title: "q and v of the last quarter of the layers, r 8",
    lora: (config) => lastLayers(config, Math.ceil(layersOf(config) / 4)),
  },
  "last-layer": { title: "q and v of the last layer, r 8", lora: (config) => lastLayers(config, 1) },
};

const ofPictures: Readonly<Record<string, Selection>> = {
  "top-qv": {
    title: "q and v of the last 2 encoder and all decoder layers, r 8",
    lora: (config) => ({ ...qv, target_modules: top(config, "q_proj|v_proj") }),
  },
  "top-linear": {
    title: "every linear layer of the last 2 encoder and all decoder layers, r 8",
    lora: (config) => ({ ...qv, target_modules: top(config, "[qkv]_proj|out_proj|fc1|fc2") }),
  },
  "vision-qkv": {
    title: "qkv of the vision tower, r 8",
    lora: () => ({ ...qv, target_modules: ".*vision_tower.*\\.qkv" }),
  },
  "all-linear": { title: "every linear layer, r 16", lora: () => everyLinear },
};

const parametric: readonly { pattern: RegExp; make: (value: number) => Selection }[] = [
  {
    pattern: /^last-(\d+)$/,
    make: (count) => ({
      title: count === 1 ? "q and v of the last layer, r 8" : `q and v of the last ${count} layers, r 8`,
      lora: (config) => lastLayers(config, count),
    }),
  },
  {
    pattern: /^all-linear-r(\d+)$/,
    make: (r) => ({
      title: `every linear layer, r ${r}`,
      lora: () => ({ ...everyLinear, ...causal, r, lora_alpha: 2 * r }),
    }),
  },
];

/** Names that have a selection of their own; text models also have `last-N` and `all-linear-rN`. */
export const selectionNames: readonly string[] = [
  ...new Set([...Object.keys(ofText), ...Object.keys(ofPictures)]),
];

/** @throws Error for a name that the shape's kind of model does not have. */
export function selectionOf(shape: ShapeName, name: string): { readonly title: string; readonly lora: Lora } {
  const { config, row } = shapes[shape];
  const named = (row.kind === "text" ? ofText : ofPictures)[name];
  const made = named ?? (row.kind === "text" ? parametricSelection(name) : undefined);
  if (!made) throw new Error(`There is no selection ${name} of ${shape}.`);
  return { title: made.title, lora: made.lora(config) };
}

function parametricSelection(name: string): Selection | undefined {
  for (const { pattern, make } of parametric) {
    const value = pattern.exec(name)?.[1];
    if (value !== undefined) return make(Number(value));
  }
  return undefined;
}
