// Ending a generation early on an AbortSignal.

import { FeraError } from "../errors.js";

/** A run was ended by its AbortSignal; `cause` is the signal's reason. */
export class AbortError extends FeraError {
  constructor(message: string, options?: { cause?: unknown }) {
    super("abort", message, options);
  }
}

/** @throws {AbortError} If the signal has fired. */
export function throwIfAborted(where: string, signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new AbortError(`${where}: ended by its signal.`, { cause: signal.reason });
}
