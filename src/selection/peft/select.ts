import { SelectionError } from "../../errors.ts";
import { failure, Warnings } from "../failure.ts";
import type { ModuleTree } from "../tree.ts";
import { headsByTaskType } from "./defaults.ts";
import { type Injection, injectLora } from "./inject.ts";
import { PeftWrapper } from "./live.ts";
import type { LiveTree } from "./live-tree.ts";
import { noMatch } from "./no-match.ts";
import { isTruthy, type ResolvedConfig, type SelectionConfig } from "./options.ts";
import type { Patterns } from "./patterns.ts";
import { addHeads, prepare } from "./prepare.ts";
import { wrapSaved, wrapTied } from "./saved.ts";
import { Selection } from "./selection.ts";
import { wrapTokens } from "./tokens.ts";
import { unfreezeBiases } from "./trainable.ts";
import type { WrapContext } from "./wrap.ts";

/**
 * Selects what LoRA adapts in a model, exactly as PEFT 0.21 does: the same modules and parameters in the same order,
 * ranks, warnings, saved tensors and counts, and an error where PEFT fails.
 *
 * Neither the tree nor the configuration is changed; `config` of the result is the configuration as the injection
 * leaves it (defaults and "all-linear" resolved, long lists condensed).
 *
 * @throws SelectionError with `details.stage`, `details.pythonType`, the code of PEFT's failure, and the warnings
 * given before it.
 * @throws RegexError `regex-too-slow` if matching a pattern exceeds the bound.
 * Source: PEFT 0.21 `get_peft_model`, `BaseTuner.inject_adapter`.
 */
export function selectTargets(tree: ModuleTree, given: SelectionConfig): Selection {
  const warnings = new Warnings();
  try {
    return select(tree, given, warnings);
  } catch (error) {
    if (error instanceof SelectionError) error.details["warnings"] = warnings.list;
    throw error;
  }
}

function select(tree: ModuleTree, given: SelectionConfig, warnings: Warnings): Selection {
  const preparation = prepare(tree, given, warnings);
  const { config, patterns, live, isDummy } = preparation;
  const injection = injectLora(preparation, tree, warnings);
  checkOutcome(config, tree, injection, isDummy, patterns, warnings);
  unfreezeBiases(live.root, config.bias);
  const peftModel = wrapOthers(config, tree, live, warnings);
  return new Selection({ tree, preparation, injection, peftModel, warnings });
}

function checkOutcome(
  config: ResolvedConfig,
  tree: ModuleTree,
  injection: Injection,
  isDummy: boolean,
  patterns: Patterns,
  warnings: Warnings,
): void {
  const { modules, parameters, excluded } = injection;
  if (modules.length === 0 && parameters.length === 0 && !isDummy)
    throw noMatch(config, tree, injection, patterns);
  if (isTruthy(config.excludeModules) && excluded.length === 0)
    warnings.add(
      "exclude-matched-nothing",
      "excludeModules is set, but it excludes no module. Check its names.",
    );
  else if (!isDummy) {
    if (isTruthy(config.targetModules) && modules.length === 0)
      warnings.add("modules-unmatched", "targetModules is set, but it matches no module.", "RuntimeWarning");
    else if (isTruthy(config.targetParameters) && parameters.length === 0)
      warnings.add(
        "parameters-unmatched",
        "targetParameters is set, but it matches no parameter.",
        "RuntimeWarning",
      );
  }
  const names = modules.map(({ name }) => name);
  for (const [lookup, option, code] of [
    [injection.ranks, "rankPattern", "rank-pattern-unmatched"],
    [injection.alphas, "alphaPattern", "alpha-pattern-unmatched"],
  ] as const) {
    const unmatched = lookup.unmatched(names);
    if (unmatched.length > 0)
      warnings.add(
        code,
        `${option}: ${unmatched.map((key) => JSON.stringify(key)).join(", ")} match no targeted module.`,
        "RuntimeWarning",
        unmatched.length,
      );
  }
}

/** Everything after the LoRA layers: saved modules, trained tokens, and what the class of the task adds. */
function wrapOthers(
  config: ResolvedConfig,
  tree: ModuleTree,
  live: LiveTree,
  warnings: Warnings,
): PeftWrapper {
  const { taskType } = config;
  const { root } = live;
  const context: WrapContext = { isInference: config.inferenceMode, warnings };
  wrapSaved(config, root, context);
  wrapTied(config, tree, root, context);
  wrapTokens(config, tree, root, context);
  const peftModel = new PeftWrapper("PeftModel", "base_model", new PeftWrapper("LoraModel", "model", root));
  if (taskType === "TOKEN_CLS" || taskType === "QUESTION_ANS") addHeads(config);
  if (taskType !== null && taskType in headsByTaskType) wrapSaved(config, peftModel, context);
  if (taskType === "CAUSAL_LM" || taskType === "SEQ_2_SEQ_LM") checkGeneration(tree, taskType);
  return peftModel;
}

/** Classes of transformers that generate; a tree without a class is given the benefit of the doubt. */
const generates = /(ForCausalLM|LMHeadModel|DoubleHeadsModel|ForConditionalGeneration|^)$/;

function checkGeneration({ className }: ModuleTree, taskType: string): void {
  if (taskType === "CAUSAL_LM" && generates.test(className)) return;
  throw failure(
    "inject",
    "AttributeError",
    "python-internal",
    taskType === "CAUSAL_LM"
      ? `taskType CAUSAL_LM needs a model that generates text, and ${className} does not. Use another task type.`
      : "taskType SEQ_2_SEQ_LM cannot be used: PEFT 0.21 fails on it with transformers 5. Leave taskType out.",
    { className, taskType },
  );
}
