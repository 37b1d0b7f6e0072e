import type { PeftModel } from "../adapters/index.ts";
import type { LanguageModel } from "../models/index.ts";
import type { Evaluation, TrainResult } from "../training/index.ts";
import { shellWord, targetJson } from "./describe.ts";
import type { LoadedModel } from "./model.ts";
import type { Output } from "./output.ts";

type Losses = { readonly loss: number; readonly perplexity: number; readonly labelTokens: number };
export type Evaluations = {
  readonly before: Losses | undefined;
  readonly after: Losses | undefined;
  readonly history: readonly Evaluation[];
};

export type ReportContext = {
  readonly output: Output;
  /** The run's folder, as the user spelled it. */
  readonly folder: string;
  readonly loaded: LoadedModel;
  /** Until training began: reading, building the graph, loading the session. */
  readonly loadSeconds: number;
  /** CPU threads it was computed with. */
  readonly threads: number;
};

/** Says what training has come to. */
export function reportTraining(
  peft: PeftModel<LanguageModel>,
  result: TrainResult,
  evaluations: Evaluations,
  { output, folder, loaded, threads, loadSeconds }: ReportContext,
): void {
  const { steps, reason, adapter, checkpoint, seconds, loss, best, packing } = result;
  const { trainable, total } = peft.parameterCounts();
  output.document({
    steps: steps.map(({ step, epoch, loss, gradNorm, learningRate, tokens, seconds }) => ({
      step,
      loss,
      gradNorm,
      learningRate,
      tokens,
      seconds,
      epoch,
    })),
    adapter: adapter ?? null,
    trainableParameters: trainable,
    totalParameters: total,
    targets: peft.selection.targets.map(targetJson),
    modulesToSave: peft.selection.modulesToSave,
    reason,
    loss,
    seconds,
    loadSeconds,
    threads,
    ...(best && { best }),
    ...(packing && { packing }),
    ...(checkpoint !== undefined && { checkpoint }),
    ...(evaluations.after && { evaluation: { ...pick(evaluations), history: evaluations.history } }),
  });
  if (reason === "aborted") {
    output.note(
      checkpoint === undefined
        ? "interrupted before the first step: nothing was saved"
        : `interrupted after step ${steps.at(-1)?.step}: ${checkpoint} is saved. To go on, run the same command with --resume`,
    );
    return;
  }
  const { before, after } = evaluations;
  const took = `${steps.length} steps in ${seconds.toFixed(1)} s`;
  output.print(
    `${took}${reason === "early-stopping" ? ", stopped early: the evaluation loss no longer fell" : ""}`,
  );
  if (after) {
    const change = before ? `${before.loss.toFixed(4)} → ` : "";
    output.print(
      `evaluation loss ${change}${after.loss.toFixed(4)} (perplexity ${after.perplexity.toPrecision(4)})`,
    );
  } else output.print(`training loss ${steps.at(-1)?.loss.toFixed(4) ?? "unknown"} at the last step`);
  output.print(`adapter: ${folder}`);
  output.print(`try it: ${nextCommand(loaded, folder)}`);
}

const pick = ({ before, after }: Evaluations) => ({ before: before ?? null, after });

/** What one would do with a trained adapter. */
function nextCommand({ location, tokenizer, processor }: LoadedModel, folder: string): string {
  const common = `${shellWord(location)} --adapter ${shellWord(folder)}`;
  if (processor) return `graft generate ${common} --image … --prompt "<CAPTION>"`;
  return tokenizer ? `graft generate ${common} --prompt "…"` : `graft eval ${common} --data …`;
}
