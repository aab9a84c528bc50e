// Reads a scheduler's configuration file, from a folder, an address or the hub.

import { FormatError } from "../errors.js";
import type { HubOptions } from "../storage/hub/hub-options.js";
import { parsePythonObject } from "../storage/json.js";
import { joined, openStorage, type Storage } from "../storage/storage.js";
import type { SchedulerConfig } from "./scheduler.js";

/** Options of every scheduler's `fromPretrained`. */
export interface SchedulerSourceOptions extends HubOptions {
  /** The scheduler's folder in a pipeline's, commonly "scheduler". */
  subfolder?: string;
}

const FILE = "scheduler_config.json";
const LISTED_NAMES = 20;

/**
 * Reads `scheduler_config.json`.
 *
 * @throws {FormatError} If there is none, or it is malformed.
 */
export async function readSchedulerConfig(
  dir: string,
  { subfolder = "", ...options }: SchedulerSourceOptions,
): Promise<SchedulerConfig> {
  const storage = await openStorage(dir, { ...options, parts: [subfolder], weights: false });
  if (storage.file !== undefined) throw new FormatError(dir, `is a file, but ${FILE} lies in a folder.`);
  return schedulerConfigIn(storage, subfolder);
}

/** The same from a storage that is open. */
export async function schedulerConfigIn(storage: Storage, subfolder: string): Promise<SchedulerConfig> {
  const name = joined(subfolder, FILE);
  const bytes = await storage.read(name);
  if (bytes) return parsePythonObject(bytes, storage.nameOf(name));
  const names = await storage.list(subfolder);
  if (!names) throw new FormatError(storage.nameOf(name), "cannot be read: no such file.");
  const shown = names.slice(0, LISTED_NAMES).join(", ") + (names.length > LISTED_NAMES ? ", …" : "") || "nothing";
  const advice = names.includes("model_index.json") ? ' It is a pipeline: give { subfolder: "scheduler" }.' : "";
  throw new FormatError(storage.nameOf(subfolder), `has no ${FILE}; it holds ${shown}.${advice}`);
}
