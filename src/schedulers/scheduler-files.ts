// Where a scheduler's configuration file is read from. How is the platform's business: the Node entry registers a reader of
// folders and the hub, the browser's one of URLs.

import { FormatError } from "../errors.js";
import type { SchedulerConfig } from "./scheduler.js";

/** Options of every scheduler's `fromPretrained`; in Node also those of the hub (`revision`, `token`, …). */
export interface SchedulerSourceOptions extends Readonly<Record<string, unknown>> {
  /** The scheduler's folder in a pipeline's, commonly "scheduler". */
  subfolder?: string;
}

/** @returns The contents of `scheduler_config.json`. */
type SchedulerConfigReader = (dir: string, options: SchedulerSourceOptions) => Promise<SchedulerConfig>;

let reader: SchedulerConfigReader | undefined;

/** Called once by the platform's entry point. */
export function registerSchedulerConfigReader(next: SchedulerConfigReader): void {
  reader = next;
}

/**
 * Reads `scheduler_config.json`.
 *
 * @throws {FormatError} If there is none, or it is malformed.
 */
export async function readSchedulerConfig(dir: string, options: SchedulerSourceOptions): Promise<SchedulerConfig> {
  if (!reader) throw new FormatError(dir, "this platform has registered no reader of scheduler configurations.");
  return reader(dir, options);
}
