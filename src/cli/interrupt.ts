import { exitCodes } from "./errors.ts";

export type Interrupt = {
  readonly signal: AbortSignal;
  /** What the process should exit with. */
  readonly exitCode: number;
  /** Gives the signals back to the system. */
  release(): void;
};

/**
 * Lets Ctrl-C end work in good order: the first aborts the signal, the second ends the process at once.
 * @param announce called at the first.
 */
export function onInterrupt(announce: () => void): Interrupt {
  const controller = new AbortController();
  let exitCode: number = exitCodes.interrupted;
  const handle = (name: NodeJS.Signals): void => {
    if (name === "SIGTERM") exitCode = exitCodes.terminated;
    if (controller.signal.aborted) process.exit(exitCode);
    controller.abort();
    announce();
  };
  process.on("SIGINT", handle);
  process.on("SIGTERM", handle);
  return {
    signal: controller.signal,
    get exitCode() {
      return exitCode;
    },
    release: () => {
      process.off("SIGINT", handle);
      process.off("SIGTERM", handle);
    },
  };
}
