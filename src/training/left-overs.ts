// What a process that was killed while it wrote has left in a training's folder. Node only.

import { readdir, unlink } from "node:fs/promises";
import { join } from "node:path";
import { isPromptFolder, outputPath } from "./output-folder.js";

/** A file under a temporary name, as `writeFileAtomically` makes them. */
const LEFT_OVER = /^\..+\.\d+\.[0-9a-f]{8}\.tmp$/;

/** Deletes half-written files in a folder that no other process writes to; a folder that is not there has none. */
export async function clearLeftOvers(folder: string): Promise<void> {
  for (const name of await namesIn(folder)) if (LEFT_OVER.test(name)) await unlink(join(folder, name));
}

/** The same in all folders of a training but that of its checkpoints, which the trainer clears. */
export async function clearRunLeftOvers(output: string): Promise<void> {
  const validation = outputPath(output, "validation");
  const prompts = (await namesIn(validation)).filter(isPromptFolder).map((name) => join(validation, name));
  for (const folder of [output, validation, ...prompts]) await clearLeftOvers(folder);
}

const namesIn = (folder: string): Promise<string[]> => readdir(folder).catch(() => []);
