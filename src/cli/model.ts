import { fieldNames } from "../adapters/config-fields.ts";
import { snakeCase } from "../adapters/config-options.ts";
import { PeftModel } from "../adapters/index.ts";
import { openStore } from "../checkpoint/index.ts";
import { AutoTokenizer, type Tokenizer } from "../data/index.ts";
import { type GraftError, isGraftError } from "../errors.ts";
import { ImageTextToTextLM, type LanguageModel, loadLanguageModel } from "../models/index.ts";
import { Florence2Processor } from "../processing/index.ts";
import type { Output } from "./output.ts";
import { spelling } from "./schema-flags.ts";

/** A model with what stands beside it. */
export type LoadedModel = {
  /** As the user spelled it. */
  readonly location: string;
  readonly model: LanguageModel;
  readonly tokenizer: Tokenizer | undefined;
  /** Why there is no tokenizer; an error only where one is needed. */
  readonly tokenizerProblem: GraftError | undefined;
  /** What prepares pictures, for a model that reads them. */
  readonly processor: Florence2Processor | undefined;
  /** Why there is none for a model that reads pictures. */
  readonly processorProblem: GraftError | undefined;
};

/**
 * Loads a model and, if there is one, its tokenizer, and the processor of one that reads pictures.
 * @param tokenizerLocation where to look for the tokenizer (and processor) instead; it must be there then.
 */
export async function loadModel(
  location: string,
  { tokenizerLocation, output }: { tokenizerLocation?: string | undefined; output: Output },
): Promise<LoadedModel> {
  const model = await loadLanguageModel(location);
  for (const warning of model.origin.warnings) output.warn(warning);
  const store = await openStore(tokenizerLocation ?? location);
  const required = tokenizerLocation !== undefined;
  const [processor, processorProblem] =
    model instanceof ImageTextToTextLM
      ? await attempt(() => Florence2Processor.fromPretrained(store), { required })
      : [];
  const [tokenizer, tokenizerProblem] = processor
    ? [processor.tokenizer]
    : await attempt(() => AutoTokenizer.fromPretrained(store), { required });
  return { location, model, tokenizer, tokenizerProblem, processor, processorProblem };
}

/** What `read` gives, or why it does not: an error at once only for what is required. */
async function attempt<T>(
  read: () => Promise<T>,
  { required }: { required: boolean },
): Promise<[T, undefined] | [undefined, GraftError]> {
  try {
    return [await read(), undefined];
  } catch (error) {
    if (!isGraftError(error) || required) throw error;
    return [undefined, error];
  }
}

/** Options of LoRA in messages, as adapter_config.json has them. */
const asInFiles = spelling([], Object.fromEntries(fieldNames.map((name) => [name, snakeCase(name)])));

/** Puts a saved adapter into a model. */
export async function loadAdapter(
  model: LanguageModel,
  location: string,
  { isTrainable, output }: { isTrainable: boolean; output: Output },
): Promise<PeftModel<LanguageModel>> {
  const peft = await PeftModel.fromPretrained(model, location, { isTrainable });
  if (peft.naming !== "native")
    output.note(`${location} has the names of ${peft.naming}; its modules were found under the model's own`);
  for (const { message } of [...peft.peftConfig.warnings, ...peft.selection.warnings])
    output.warn(asInFiles(message));
  return peft;
}

/** The token to pad with: the tokenizer's, if the model has it, else the model's own. */
export const padTokenId = ({ model, tokenizer }: LoadedModel): number =>
  model.hasToken(tokenizer?.padTokenId) ? tokenizer!.padTokenId! : model.padTokenId;
