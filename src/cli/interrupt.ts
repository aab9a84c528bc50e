// Ctrl-C, or a terminal that is closed: the first signal asks a command to end well, the second ends the process.

/** Between two signals that come from one key press: a terminal and npm may both send it. */
const SAME_PRESS_MS = 500;
const EXIT_CODES = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;
const SIGNALS = Object.keys(EXIT_CODES) as (keyof typeof EXIT_CODES)[];

let exitCode: number = EXIT_CODES.SIGINT;

/** The exit code of a command that was interrupted: 128 and the signal's number. */
export const interruptedExitCode = (): number => exitCode;

/** Whether an error says no more than that the user interrupted. */
export function isInterruption(error: unknown): boolean {
  return error instanceof Error && error.name === "AbortError";
}

/**
 * Runs something that a signal can end.
 *
 * @param advice - Printed at the first signal: what happens now. Nothing is printed without it.
 */
export async function interruptible<T>(
  advice: string | undefined,
  run: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  let pressedAt = Number.NEGATIVE_INFINITY;
  const onSignal = (signal: keyof typeof EXIT_CODES): void => {
    const now = performance.now();
    exitCode = EXIT_CODES[signal];
    if (!controller.signal.aborted) {
      pressedAt = now;
      if (advice !== undefined) process.stderr.write(`\n${advice} Press Ctrl-C again to quit at once.\n`);
      controller.abort();
    } else if (now - pressedAt > SAME_PRESS_MS) {
      // Not process.exit: where ONNX Runtime is at work, that ends in an abort.
      for (const name of SIGNALS) process.off(name, onSignal);
      process.kill(process.pid, signal);
    }
  };
  for (const name of SIGNALS) process.on(name, onSignal);
  try {
    return await run(controller.signal);
  } finally {
    for (const name of SIGNALS) process.off(name, onSignal);
  }
}
