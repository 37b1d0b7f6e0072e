import { TrainingError } from "../errors.ts";

/** Where scalars go while training runs: a file, TensorBoard, a chart. Writers are called in step order. */
export type MetricsWriter = {
  /**
   * Records scalars of one step. Names follow transformers' TensorBoard tags: `train/loss`,
   * `train/learning_rate`, `eval/loss`. May be awaited; the scalars are on their way to disk when it resolves.
   */
  write(step: number, scalars: Readonly<Record<string, number>>): Promise<void> | void;
  /** Finishes pending writes and releases the file. Calling it again does nothing. */
  close(): Promise<void> | void;
};

/**
 * One JSON line, without its line break: `{"step":10,"time":1735689600.5,"train/loss":0.25}`, time in seconds
 * since 1970 UTC. NaN and infinities, for which JSON has no number, become the strings "NaN", "Infinity" and
 * "-Infinity".
 * @throws TrainingError if a scalar is called `step` or `time`.
 */
export function metricsLine(step: number, scalars: Readonly<Record<string, number>>, time: number): string {
  for (const name of ["step", "time"])
    if (name in scalars)
      throw new TrainingError(`A metric cannot be called "${name}": every line has that field. Rename it.`, {
        code: "reserved-metric-name",
        details: { name },
      });
  return JSON.stringify({ step, time, ...scalars }, (_, value) =>
    typeof value === "number" && !Number.isFinite(value) ? String(value) : value,
  );
}

/**
 * What to keep of an existing metrics file before appending to it: complete lines up to `resumeStep`, so that
 * steps which are done again after a crash are not there twice. A last line cut short by the crash goes too.
 * Lines that are not metrics (no number called `step`) stay.
 */
export function keepMetricsLines(text: string, resumeStep = Infinity): string {
  const lines = text.split("\n");
  const last = lines.pop()!;
  if (parses(last)) lines.push(last);
  return lines
    .filter((line) => {
      const step = parses(line)?.["step"];
      return !(typeof step === "number" && step > resumeStep);
    })
    .map((line) => `${line}\n`)
    .join("");
}

/** The JSON object on a line, if that is what it is. */
function parses(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
