// Mistakes in the arguments, which end a command with exit code 2.

import type { Command } from "commander";
import { FeraError } from "../errors.js";

/** Arguments that cannot be meant: the message names flag or key, rule and value. */
export class UsageError extends FeraError {
  constructor(
    /** The command whose usage is to be shown. */
    readonly command: Command,
    message: string,
  ) {
    super("usage", message);
  }
}
