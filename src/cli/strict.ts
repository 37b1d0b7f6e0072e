import { listProblems, SelectionError } from "../errors.ts";
import { toggle } from "./flags.ts";

export const strictFlags = {
  strict: toggle("Take warnings about the selection for errors."),
};

type Warning = {
  readonly code: string;
  readonly message: string;
  readonly details?: Readonly<Record<string, unknown>>;
};

/** With `--strict`. @throws SelectionError "strict" if there are warnings, but for those marked harmless. */
export function refuseWarnings(warnings: readonly Warning[]): void {
  const serious = warnings.filter(({ details }) => details?.["harmless"] !== true);
  if (serious.length === 0) return;
  throw new SelectionError(
    `--strict: ${serious.length === 1 ? "a warning" : `${serious.length} warnings`} about the selection: ` +
      listProblems(serious.map(({ message }) => message.replace(/\.$/, ""))),
    { code: "strict", details: { warnings: serious } },
  );
}
