// Names of runs as requests give them: folders of the runs folder, and nothing else. Node only.

import { lstat } from "node:fs/promises";
import { join } from "node:path";
import { quoted } from "../errors.js";
import { pathInside } from "./chosen-folders.js";
import { StudioError } from "./studio-error.js";

/** Whether a name is that of a folder in the runs folder, and not hidden. */
export const isRunId = (id: string): boolean => id !== "" && !/[/\\\0]/.test(id) && !id.startsWith(".");

/** A run's name, as it came. @throws {StudioError} 403 if it could lead elsewhere. */
export function checkedRunId(id: string): string {
  if (isRunId(id)) return id;
  throw new StudioError(403, `${quoted(id)} is no name of a run.`);
}

/**
 * The folder of a run, which may not be there yet.
 *
 * @param runs - Absolute.
 * @throws {StudioError} 403 if the name is none, or the folder a link that leads out of the runs folder.
 */
export async function runFolder(runs: string, id: string): Promise<string> {
  const folder = join(runs, checkedRunId(id));
  if (await lstat(folder).catch(() => undefined)) await pathInside(runs, id);
  return folder;
}
