import { fieldNames } from "../adapters/config-fields.ts";
import { snakeCase } from "../adapters/config-options.ts";
import { PeftModel } from "../adapters/index.ts";
import { openStore } from "../checkpoint/index.ts";
import { AutoTokenizer, type Tokenizer } from "../data/index.ts";
import { type GraftError, isGraftError } from "../errors.ts";
import { AutoModelForCausalLM, type CausalLM } from "../models/index.ts";
import type { Output } from "./output.ts";
import { spelling } from "./schema-flags.ts";

/** A model with what stands beside it. */
export type LoadedModel = {
  /** As the user spelled it. */
  readonly location: string;
  readonly model: CausalLM;
  readonly tokenizer: Tokenizer | undefined;
  /** Why there is no tokenizer; an error only where one is needed. */
  readonly tokenizerProblem: GraftError | undefined;
};

/**
 * Loads a model and, if there is one, its tokenizer.
 * @param tokenizerLocation where to look for the tokenizer instead; it must be there then.
 */
export async function loadModel(
  location: string,
  { tokenizerLocation, output }: { tokenizerLocation?: string | undefined; output: Output },
): Promise<LoadedModel> {
  const model = await AutoModelForCausalLM.fromPretrained(location);
  for (const warning of model.origin.warnings) output.warn(warning);
  let tokenizer: Tokenizer | undefined;
  let tokenizerProblem: GraftError | undefined;
  try {
    tokenizer = await AutoTokenizer.fromPretrained(await openStore(tokenizerLocation ?? location));
  } catch (error) {
    if (!isGraftError(error) || tokenizerLocation !== undefined) throw error;
    tokenizerProblem = error;
  }
  return { location, model, tokenizer, tokenizerProblem };
}

/** Options of LoRA in messages, as adapter_config.json has them. */
const asInFiles = spelling([], Object.fromEntries(fieldNames.map((name) => [name, snakeCase(name)])));

/** Puts a saved adapter into a model. */
export async function loadAdapter(
  model: CausalLM,
  location: string,
  { isTrainable, output }: { isTrainable: boolean; output: Output },
): Promise<PeftModel<CausalLM>> {
  const peft = await PeftModel.fromPretrained(model, location, { isTrainable });
  for (const { message } of [...peft.peftConfig.warnings, ...peft.selection.warnings])
    output.warn(asInFiles(message));
  return peft;
}

/** The token to pad with: the tokenizer's, if the model has it, else the model's own. */
export const padTokenId = ({ model, tokenizer }: LoadedModel): number =>
  model.hasToken(tokenizer?.padTokenId) ? tokenizer!.padTokenId! : model.padTokenId;
