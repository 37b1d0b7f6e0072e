import { z } from "zod";
import { taskTypes } from "../selection/index.ts";

const expected = (what: string) => ({ error: `must be ${what}` });

const entries = (description: string) =>
  z
    .union(
      [z.string(), z.array(z.string())],
      expected("an entry or a list of entries (names, globs, regexes)"),
    )
    .describe(description);

const layerNumberOrExpression = z.union([z.int(), z.string()]);
const layerValue = z.union([z.int(), z.string(), z.array(layerNumberOrExpression)]);
const layers = z
  .union(
    [layerValue, z.record(z.string(), layerValue)],
    expected(
      'a number, an expression such as "last 4", a list of them, or such by the name of a list of layers',
    ),
  )
  .describe(
    'Which layers: a number, an expression ("4-7", "-2:", "last 4", "first 25%", "odd", "!0"), or a list of them, for every stack of layers; or such by the name of a list of layers, as in {"encoder.layers": "-2:", "decoder.layers": "all"}.',
  );

const rank = z.int(expected("a whole number of at least 1")).min(1, expected("a whole number of at least 1"));
const alpha = z.number(expected("a number"));

/** One group, with the names of a file. */
export const groupSchema = z
  .object(
    {
      name: z.string(expected("a string")).describe("What messages call the group."),
      target_modules: entries(
        'Modules to adapt: names ("q_proj"), globs ("*_proj", "**.self_attn.*"), Python regular expressions for whole names, "all-linear", and "!" in front of what to leave out. Default: PEFT\'s for the type of model.',
      ),
      exclude_modules: entries('Modules to leave out, in the same forms, without "!".'),
      layers,
      r: rank.describe("Rank. Default: the r of the file."),
      lora_alpha: alpha.describe(
        "The update is scaled by lora_alpha / r. Default: the lora_alpha of the file.",
      ),
    },
    expected("an object"),
  )
  .partial()
  .loose();

export const groupsSchema = z
  .array(groupSchema, expected("a list of groups"))
  .min(1, expected("a list of at least one group"))
  .describe(
    "Sets of modules, each with its own layers, rank and alpha. Where groups overlap, the last decides.",
  );

export const groupFields: readonly string[] = Object.keys(groupSchema.shape);

const names = z.array(z.string());
const settings = z.record(z.string(), z.unknown()).nullable();
const table = (value: z.ZodType) => z.record(z.string(), value).nullable();

/** PEFT's options, for editors; LoraConfig checks them. */
const peftFields = {
  peft_type: z.literal("LORA").describe("PEFT's method; only LORA."),
  r: rank.describe("Rank: the width of the low-rank update. Default: 8."),
  lora_alpha: alpha.describe("The update is scaled by lora_alpha / r. Default: 8."),
  lora_dropout: z.number().min(0).lt(1).describe("Probability of dropping an adapter's input. Default: 0."),
  target_modules: z
    .union([z.string(), names])
    .nullable()
    .describe("Without groups, as in PEFT: names, a regular expression for whole names, or all-linear."),
  exclude_modules: z.union([z.string(), names]).nullable().describe("Modules to leave out, of all groups."),
  layers_to_transform: z
    .union([z.int(), z.array(z.int())])
    .nullable()
    .describe("Without groups, as in PEFT: numbers of layers."),
  layers_pattern: z
    .union([z.string(), names])
    .nullable()
    .describe("Without groups, as in PEFT: name of the list of layers."),
  rank_pattern: table(z.int().min(1)).describe(
    "Ranks by pattern of module names; the first that matches counts.",
  ),
  alpha_pattern: table(z.number()).describe(
    "Alphas by pattern of module names; the first that matches counts.",
  ),
  modules_to_save: names.nullable().describe("Modules to train as a whole and save with the adapter."),
  target_parameters: names
    .nullable()
    .describe("Parameters to adapt by their names, such as stacked experts."),
  trainable_token_indices: z
    .union([z.array(z.int()), z.record(z.string(), z.array(z.int()))])
    .nullable()
    .describe("Tokens whose rows of the embedding are trained."),
  bias: z.enum(["none", "all", "lora_only"]).describe("Biases to train besides. Default: none."),
  use_rslora: z.boolean().describe("Scale by lora_alpha / √r instead."),
  use_dora: z.boolean().describe("Weight-decomposed LoRA."),
  lora_bias: z.boolean().describe("Give adapters a bias."),
  init_lora_weights: z
    .union([z.boolean(), z.string()])
    .nullable()
    .describe("How adapters start: true, false, gaussian, … Default: true, which changes nothing at first."),
  layer_replication: z
    .array(z.tuple([z.int(), z.int()]))
    .nullable()
    .describe("Ranges of layers to stack a deeper model from."),
  fan_in_fan_out: z.boolean().describe("The base weights are stored (in, out), as in GPT-2."),
  ensure_weight_tying: z.boolean().describe("Keep adapters of layers with tied weights tied."),
  task_type: z
    .enum(taskTypes as [string, ...string[]])
    .nullable()
    .describe("PEFT's task type."),
  inference_mode: z.boolean().describe("Written as true with a saved adapter."),
  base_model_name_or_path: z.string().nullable().describe("The model that the adapter is for."),
  revision: z.string().nullable().describe("Its revision."),
  auto_mapping: settings.describe("Class and Python module of the base model."),
  peft_version: z.string().nullable().describe("The version of PEFT that wrote the file."),
  alora_invocation_tokens: z
    .array(z.int())
    .nullable()
    .describe("Activated LoRA: tokens that start the adapter."),
  arrow_config: settings.describe("Arrow routing."),
  corda_config: settings.describe("CorDA initialisation."),
  eva_config: settings.describe("EVA initialisation."),
  kasa_config: settings.describe("KaSA."),
  loftq_config: settings.describe("LoftQ initialisation."),
  lora_ga_config: settings.describe("LoRA-GA initialisation."),
  megatron_config: settings.describe("Megatron's parallel layers."),
  megatron_core: z.string().nullable().describe("Module of Megatron's core."),
  monteclora_config: settings.describe("MonteCLoRA."),
  qalora_group_size: z.int().describe("Group size of QA-LoRA."),
  use_bdlora: settings.describe("BD-LoRA."),
  use_qalora: z.boolean().describe("QA-LoRA."),
  velora_config: settings.describe("VeLoRA."),
};

/** A whole file: graft.yaml, or the same as JSON. */
export const fileSchema = z
  .object({
    groups: groupsSchema,
    layers: layers.describe(
      "Layers of target_modules, where there is one group only: what groups[].layers takes.",
    ),
    ...peftFields,
  })
  .partial()
  .loose()
  .describe(
    "Which modules of a model get LoRA adapters, for Graft: the options of PEFT's LoraConfig, and groups of modules with their own layers and ranks.",
  );

/** The JSON schema of a file, for editors. */
export const graftSchema = (): Record<string, unknown> => ({
  title: "Graft selection",
  ...z.toJSONSchema(fileSchema, {
    target: "draft-2020-12",
    io: "input",
    override: ({ jsonSchema }) => {
      // that integers are exact, and keys strings, goes without saying
      if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum;
      if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
      delete jsonSchema.propertyNames;
    },
  }),
});
