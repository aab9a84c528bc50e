// What goes wrong between here and the hub.

import { FeraError } from "../../errors.js";

/** The hub cannot be reached, refuses, or sends something else than it promised. */
export class HubError extends FeraError {
  /** The answer's HTTP status; undefined where there was no answer. */
  readonly status: number | undefined;

  constructor(message: string, options: { status?: number; cause?: unknown } = {}) {
    super("hub", message, options);
    this.status = options.status;
  }

  /** Whether the hub could not be asked at all, or failed by itself: what is in the cache may do. */
  get isOutage(): boolean {
    return this.status === undefined || this.status >= 500 || this.status === 429;
  }
}
