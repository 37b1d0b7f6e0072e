import type { MetricsWriter } from "./metrics.ts";
import { epochsSeen } from "./run-state.ts";
import type { TrainerState } from "./state.ts";

/** Records a run's scalars: in its history, and with every writer. */
export class RunLog {
  private readonly state: TrainerState;
  private readonly writers: readonly MetricsWriter[];

  constructor(state: TrainerState, writers: readonly MetricsWriter[]) {
    this.state = state;
    this.writers = writers;
  }

  /** Writes the mean of what has happened since the last entry. */
  async steps(): Promise<void> {
    const { unlogged } = this.state;
    if (!unlogged) return;
    delete this.state.unlogged;
    await this.record({
      loss: unlogged.loss / unlogged.steps,
      grad_norm: unlogged.gradNorm,
      learning_rate: unlogged.learningRate,
      tokens_per_second: unlogged.tokens / unlogged.seconds,
    });
  }

  async record(scalars: Record<string, number>): Promise<void> {
    const { step } = this.state;
    const entry = { epoch: epochsSeen(this.state), ...scalars };
    this.state.history.push({ step, ...entry });
    await Promise.all(this.writers.map((writer) => writer.write(step, entry)));
  }

  async close(): Promise<void> {
    for (const writer of this.writers) await writer.close();
  }
}
