import CliProgress from "cli-progress";
import { clock, grouped } from "./describe.ts";
import type { Output } from "./output.ts";

export type ProgressOptions = {
  /** What is going on: "training". */
  readonly label: string;
  /** What is counted: "steps". */
  readonly unit: string;
  readonly total: number;
  /** Where it starts, for what is resumed. */
  readonly start?: number;
};

/** Seconds between the lines that stand for the bar where there is no terminal. */
const lineInterval = 10;

/** How many of the latest updates the remaining time is estimated from. */
const estimateFrom = 20;

/** DECSC. */
const saveCursor = "\x1b7";

/** How far something is: a bar on a terminal, else a line now and then, on stderr. */
export class Progress {
  private readonly output: Output;
  private readonly options: ProgressOptions;
  private readonly bar: CliProgress.SingleBar | undefined;
  private readonly times: [at: number, done: number][] = [];
  private lastLine = performance.now();
  private stopped = false;

  constructor(output: Output, options: ProgressOptions) {
    this.output = output;
    this.options = options;
    const { start = 0, total, label } = options;
    this.times.push([performance.now(), start]);
    if (output.quiet || !process.stderr.isTTY) return;
    this.bar = new CliProgress.SingleBar({
      stream: process.stderr,
      format: `${label} {bar} {value}/{total}{info}`,
      barsize: Math.max(4, Math.min(24, process.stderr.columns - 62)),
      barCompleteChar: "█",
      barIncompleteChar: "░",
      forceRedraw: true,
      linewrap: true, // left as it is, so that nothing has to be put back if the process is killed
      clearOnComplete: true,
    });
    this.bar.start(total, start, { info: "" });
    output.beforeNote = () => {
      process.stderr.cursorTo(0);
      process.stderr.clearLine(0);
    };
  }

  /** @param info what else to show, such as the loss. */
  update(done: number, info: readonly string[] = []): void {
    if (this.output.quiet || this.stopped) return;
    const { label, unit, total } = this.options;
    this.times.push([performance.now(), done]);
    if (this.times.length > estimateFrom) this.times.shift();
    const left = this.secondsLeft(done);
    const parts = [...info, ...(left === undefined ? [] : [`${clock(left)} left`])];
    if (this.bar) {
      this.bar.update(done, { info: parts.map((part) => ` | ${part}`).join("") });
      return;
    }
    const now = performance.now();
    if (done < total && now - this.lastLine < lineInterval * 1000) return;
    this.lastLine = now;
    this.output.note([`${label} ${grouped(done)}/${grouped(total)} ${unit}`, ...parts].join(", "));
  }

  /** Removes the bar. Calling it again does nothing. */
  stop(): void {
    if (this.stopped) return;
    this.stopped = true;
    if (this.bar) {
      process.stderr.write(saveCursor); // stop returns to where the cursor was saved: the bar's own line by now
      this.bar.stop();
    }
    this.output.beforeNote = undefined;
  }

  private secondsLeft(done: number): number | undefined {
    const [at, first] = this.times[0]!;
    if (done <= first || done >= this.options.total) return undefined;
    return ((performance.now() - at) / 1000 / (done - first)) * (this.options.total - done);
  }
}
