// What the studio refuses, with the HTTP status that says so.

import { FeraError } from "../errors.js";

/** A request that is refused; its message is shown to the user as it is. */
export class StudioError extends FeraError {
  constructor(
    readonly status: 400 | 401 | 403 | 404 | 409 | 413 | 500,
    message: string,
    options?: { cause?: unknown },
  ) {
    super("studio", message, options);
  }
}
