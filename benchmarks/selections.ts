import { type ShapeName, shapes } from "./shapes.ts";

/** Members of an adapter_config.json. */
export type Lora = Readonly<Record<string, unknown>>;

type Selection = {
  readonly title: string;
  readonly lora: (config: Readonly<Record<string, unknown>>) => Lora;
  /** Rows per step, where not the shape's: what costs most is measured with the fewest. */
  readonly batches?: readonly number[];
};

const causal = { task_type: "CAUSAL_LM" };
const qv = { r: 8, lora_alpha: 16, target_modules: ["q_proj", "v_proj"] };
const everyLinear = { r: 16, lora_alpha: 32, target_modules: "all-linear" };

/** The last quarter of the layers, rounded up. */
function lastQuarter(layers: number): number[] {
  return Array.from({ length: layers }, (_, i) => i).slice(layers - Math.ceil(layers / 4));
}

/** Modules in the last two layers of Florence-2's encoder and in all of its decoder. */
function top(config: Readonly<Record<string, unknown>>, modules: string): string {
  const { encoder_layers: layers } = config["text_config"] as { encoder_layers: number };
  return `.*\\.(encoder\\.layers\\.(${layers - 2}|${layers - 1})|decoder)\\..*\\.(${modules})`;
}

const ofText = {
  "all-linear": { title: "every linear layer, r 16", lora: () => ({ ...everyLinear, ...causal }) },
  qv: { title: "q and v, r 8", lora: () => ({ ...qv, ...causal }) },
  "last-quarter": {
    title: "q and v of the last quarter of the layers, r 8",
    lora: (config) => ({
      ...qv,
      ...causal,
      layers_to_transform: lastQuarter(config["num_hidden_layers"] as number),
      layers_pattern: "layers",
    }),
  },
} as const satisfies Record<string, Selection>;

const ofPictures = {
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
    batches: [1],
  },
  "all-linear": { title: "every linear layer, r 16", lora: () => everyLinear, batches: [1] },
} as const satisfies Record<string, Selection>;

export const selectionNames: readonly string[] = [
  ...new Set([...Object.keys(ofText), ...Object.keys(ofPictures)]),
];

/** What a shape is measured with, by name. */
export const selectionsOf = (shape: ShapeName): Readonly<Record<string, Selection>> =>
  shapes[shape].row.kind === "text" ? ofText : ofPictures;
