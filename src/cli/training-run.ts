// A training's output folder: what started it, and whether it may be written.

import { renameSync, rmSync, writeFileSync } from "node:fs";
import { readdir, readFile, rm, rmdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { FOLDER_CONFIG, FOLDER_WEIGHTS } from "../adapters/adapter-folder.js";
import { adapterFormatOf } from "../adapters/index.js";
import { FormatError, TrainingError } from "../errors.js";
import { isSystemError, readJsonObject } from "../storage/file-access.js";
import { withFileLock } from "../storage/file-lock.js";
import { clearCheckpoints } from "../training/checkpoint.js";
import { LIBRARY_VERSION } from "../training/engine.js";
import { latestCheckpoint } from "../training/index.js";
import {
  isPromptFolder,
  isPromptPicture,
  isValidationPicture,
  OUTPUT_NAMES,
  outputPath,
} from "../training/output-folder.js";
import { isEventFile } from "../training/report/event-log.js";

/** The file with the options of a run, for those who resume it. */
export const settingsPath = (output: string): string => outputPath(output, "run");

/** Beside the options: the version of this library that wrote them. A checkpoint tells more, and is what a resumed run heeds. */
const VERSION = "fera";

/** Options of the run that was started in a folder; undefined where there was none. @throws {FormatError} If they are damaged. */
export async function readSettings(output: string): Promise<Record<string, unknown> | undefined> {
  const names = await readdir(output).catch(() => [] as string[]);
  if (!names.includes(OUTPUT_NAMES.run)) return undefined;
  try {
    const { [VERSION]: _, ...settings } = await readJsonObject(settingsPath(output));
    return settings;
  } catch (cause) {
    // What the system refuses is no damage.
    if (!(cause instanceof FormatError) || isSystemError(cause.cause)) throw cause;
    throw new FormatError(
      settingsPath(output),
      "is damaged: it must hold a JSON object. Delete it, and give --resume together with all options of the training; " +
        "its checkpoint refuses others.",
      { cause },
    );
  }
}

/** Keeps a run's options in its folder. At once, so that they are there before anything that belongs to them. */
export function writeSettings(output: string, settings: object): void {
  const path = settingsPath(output);
  // Whole or not at all: half a file would keep the run from being resumed.
  const temporary = `${path}.tmp`;
  try {
    writeFileSync(temporary, `${JSON.stringify({ [VERSION]: LIBRARY_VERSION, ...settings }, undefined, 2)}\n`, {
      flush: true,
    });
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

/**
 * Leaves a training that is already in the folder alone.
 *
 * @param adapter - The adapter's path.
 * @throws {TrainingError} If there is one.
 */
export async function refuseStartedRun(output: string, adapter: string): Promise<void> {
  const checkpoint = await latestCheckpoint(outputPath(output, "checkpoints"));
  const metrics = outputPath(output, "metrics");
  const files = [settingsPath(output), metrics, ...(checkpoint ? [checkpoint] : []), adapter];
  for (const path of files) {
    const known = await stat(path).catch(() => undefined);
    if (!known || known.size === 0) continue;
    // A training that failed at its first step leaves what was measured before it, which is no loss.
    if (path === metrics && !(await hasStep(path))) continue;
    throw new TrainingError(
      `output folder ${output}: already holds a training (${path}). ` +
        "Go on with it (--resume), replace it (--overwrite), or choose another --output.",
    );
  }
}

/** Whether metrics hold a step; what they are damaged with counts as one. */
async function hasStep(metrics: string): Promise<boolean> {
  const lines = (await readFile(metrics, "utf8")).split("\n").filter((line) => line !== "");
  return lines.some((line) => !line.startsWith('{"step":0,'));
}

/** What a training writes beside its adapter and its folders. */
const FILES = [
  ...["run", "dataset", "metrics", "lossPlot", "validationPlot", "learningRatePlot", "gatesPlot", "report"],
] as (keyof typeof OUTPUT_NAMES)[];

/**
 * Deletes what a training wrote into its folder, and nothing else: a folder that holds anything else stays with that.
 *
 * @param adapter - The adapter's path.
 */
export async function clearRun(output: string, adapter: string): Promise<void> {
  for (const name of FILES) await rm(outputPath(output, name), { force: true });
  await clearCheckpoints(outputPath(output, "checkpoints"));
  await removeIfEmpty(outputPath(output, "checkpoints"));
  const validation = outputPath(output, "validation");
  for (const name of await readdir(validation).catch(() => [] as string[])) {
    if (isPromptFolder(name)) await clearFolder(join(validation, name), isPromptPicture);
  }
  await clearFolder(validation, isValidationPicture);
  await clearFolder(outputPath(output, "eventLog"), isEventFile);
  if (adapterFormatOf(adapter) !== "folder") await rm(adapter, { force: true });
  else await clearFolder(adapter, (name) => name === FOLDER_CONFIG || name === FOLDER_WEIGHTS);
}

async function clearFolder(folder: string, isOurs: (name: string) => boolean): Promise<void> {
  const names = await readdir(folder).catch(() => [] as string[]);
  for (const name of names.filter(isOurs)) await rm(join(folder, name), { force: true });
  await removeIfEmpty(folder);
}

/** rmdir fails where a folder holds something. */
const removeIfEmpty = (folder: string): Promise<void> => rmdir(folder).catch(() => undefined);

/**
 * Runs a training while no other runs in the same folder.
 *
 * @throws {TrainingError} If one does.
 */
export async function alone<T>(output: string, run: () => Promise<T>): Promise<T> {
  const lock = outputPath(output, "lock");
  return withFileLock(lock, run, {
    onWait: () => {
      throw new TrainingError(
        `output folder ${output}: another training is at work there. Wait for its end, or choose another --output. ` +
          `(If there is none, delete ${lock}.)`,
      );
    },
  });
}
