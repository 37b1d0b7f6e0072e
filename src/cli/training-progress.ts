import type { BaseWeightsReport, PackingReport, TrainerCallback } from "../training/index.ts";
import { grouped } from "./describe.ts";
import type { Output } from "./output.ts";
import { Progress } from "./progress.ts";

/** Shows training as it goes: a bar with loss, speed and time left, and a line for every evaluation. */
export class TrainingProgress implements TrainerCallback {
  private readonly output: Output;
  private readonly spell: (text: string) => string;
  private progress: Progress | undefined;
  /** Until training began. */
  loadSeconds = 0;

  /** `spell` puts flags in the place of names of options. */
  constructor(output: Output, spell: (text: string) => string) {
    this.output = output;
    this.spell = spell;
  }

  readonly onTrainBegin: NonNullable<TrainerCallback["onTrainBegin"]> = ({
    step,
    totalSteps,
    examples,
    packing,
    prefixCache,
    gradientCheckpointing,
    baseWeights,
    loadSeconds,
  }) => {
    this.loadSeconds = loadSeconds;
    if (baseWeights) this.output.note(baseWeightsNote(baseWeights));
    if (prefixCache) this.output.note(`prefix cache: ${prefixCache.reason}`);
    if (gradientCheckpointing)
      this.output.note(`gradient checkpointing: ${this.spell(gradientCheckpointing.reason)}`);
    if (packing) this.output.note(packingNote(examples, packing));
    if (step > 0) this.output.note(`resuming after step ${grouped(step)} of ${grouped(totalSteps)}`);
    else
      this.output.note(
        `training: ${grouped(totalSteps)} steps on ${grouped(examples)} examples, loaded in ${loadSeconds.toFixed(1)} s`,
      );
    this.progress = new Progress(this.output, {
      label: "training",
      unit: "steps",
      total: totalSteps,
      start: step,
    });
  };

  readonly onStepEnd: NonNullable<TrainerCallback["onStepEnd"]> = ({ step, loss, tokensPerSecond }) => {
    this.progress?.update(step, [
      `loss ${loss.toFixed(4)}`,
      `${grouped(Math.round(tokensPerSecond))} tokens/s`,
    ]);
  };

  readonly onEvaluate: NonNullable<TrainerCallback["onEvaluate"]> = ({ step, loss, perplexity, best }) => {
    const mark = best ? ", the best so far" : "";
    this.output.note(
      `step ${grouped(step)}: evaluation loss ${loss.toFixed(4)}, perplexity ${perplexity.toPrecision(4)}${mark}`,
    );
  };

  readonly onWarning: NonNullable<TrainerCallback["onWarning"]> = ({ message }) => {
    this.output.warn(this.spell(message));
  };

  /** Removes the bar. */
  stop(): void {
    this.progress?.stop();
  }
}

function packingNote(examples: number, { rows, packLength, padding }: PackingReport): string {
  const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
  return `packing: ${grouped(examples)} examples in ${grouped(rows)} rows of up to ${grouped(packLength)} tokens, ${percent(padding.with)} of them padding instead of ${percent(padding.without)}`;
}

function baseWeightsNote({ dtype, quantized, kept, partly }: BaseWeightsReport): string {
  const few = (paths: readonly string[]): string =>
    paths.length > 3 ? `${paths.slice(0, 3).join(", ")} and ${paths.length - 3} more` : paths.join(", ");
  const keeping = kept.length > 0 ? `; ${kept.length} stay float32: ${few(kept)}` : "";
  const half = partly.length > 0 ? `; partly float32 in ${partly.length}: ${few(partly)}` : "";
  return `base weights: ${dtype} in ${quantized} linear layers${keeping}${half}`;
}
