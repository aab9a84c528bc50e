// A training's output folder: what started it, whether it may be written, and what its metrics say.

import { renameSync, rmSync, writeFileSync } from "node:fs";
import { readdir, readFile, rm, rmdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { FOLDER_CONFIG, FOLDER_WEIGHTS } from "../adapters/adapter-folder.js";
import { adapterFormatOf } from "../adapters/index.js";
import { FormatError, TrainingError } from "../errors.js";
import { writePng } from "../images/image-file.js";
import { renderPlot } from "../images/plot.js";
import { isSystemError, readJsonObject } from "../storage/file-access.js";
import { withFileLock } from "../storage/file-lock.js";
import { clearCheckpoints } from "../training/checkpoint.js";
import { latestCheckpoint } from "../training/index.js";
import { isValidationPicture, OUTPUT_NAMES, outputPath } from "../training/output-folder.js";

/** Weight of what came before in the smoothed loss: about the last 50 steps count. */
const SMOOTHING = 0.98;

/** The file with the options of a run, for those who resume it. */
export const settingsPath = (output: string): string => outputPath(output, "run");

/** Options of the run that was started in a folder; undefined where there was none. @throws {FormatError} If they are damaged. */
export async function readSettings(output: string): Promise<Record<string, unknown> | undefined> {
  const names = await readdir(output).catch(() => [] as string[]);
  if (!names.includes(OUTPUT_NAMES.run)) return undefined;
  try {
    return await readJsonObject(settingsPath(output));
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
    writeFileSync(temporary, `${JSON.stringify(settings, undefined, 2)}\n`, { flush: true });
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
  const files = [settingsPath(output), outputPath(output, "metrics"), ...(checkpoint ? [checkpoint] : []), adapter];
  for (const path of files) {
    // A training that failed at its first step leaves empty metrics, which are no loss.
    const known = await stat(path).catch(() => undefined);
    if (!known || known.size === 0) continue;
    throw new TrainingError(
      `output folder ${output}: already holds a training (${path}). ` +
        "Go on with it (--resume), replace it (--overwrite), or choose another --output.",
    );
  }
}

/**
 * Deletes what a training wrote into its folder, and nothing else: a folder that holds anything else stays with that.
 *
 * @param adapter - The adapter's path.
 */
export async function clearRun(output: string, adapter: string): Promise<void> {
  for (const name of ["run", "dataset", "metrics", "lossPlot"] as const)
    await rm(outputPath(output, name), { force: true });
  await clearCheckpoints(outputPath(output, "checkpoints"));
  await removeIfEmpty(outputPath(output, "checkpoints"));
  await clearFolder(outputPath(output, "validation"), isValidationPicture);
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

/** Losses by step, as `metrics.jsonl` has them. */
export interface LossCurve {
  steps: number[];
  losses: number[];
  /** Exponential mean, without the bias of its start. */
  smoothed: number[];
  /** The terms that the loss is the sum of, by name, smoothed alike. */
  terms: ReadonlyMap<string, number[]>;
}

/** What a line of the metrics holds beside loss terms. */
const NO_TERMS: ReadonlySet<string> = new Set([
  ...["step", "steps", "loss", "learningRate", "gradientNorm", "seconds", "stepsPerSecond"],
]);

/** Reads `metrics.jsonl`. @throws {FormatError} If it is missing or malformed. */
export async function readLosses(output: string): Promise<LossCurve> {
  const path = outputPath(output, "metrics");
  const text = await readFile(path, "utf8").catch((cause: Error) => {
    throw new FormatError(path, `cannot be read: ${cause.message}.`, { cause });
  });
  const terms = new Map<string, number[]>();
  const curve: LossCurve = { steps: [], losses: [], smoothed: [], terms };
  const smooth = smoother();
  const smoothTerm = new Map<string, (value: number) => number>();
  const lines = text.split("\n");
  // Behind the last line break is nothing, or a line that was cut off.
  for (const [index, line] of lines.slice(0, -1).entries()) {
    if (line === "") continue;
    const { step, loss, ...others } = parseLine(line, `${path} line ${index + 1}`);
    curve.steps.push(step);
    curve.losses.push(loss);
    curve.smoothed.push(smooth(loss));
    for (const [name, value] of Object.entries(others)) {
      if (NO_TERMS.has(name) || typeof value !== "number") continue;
      if (!terms.has(name)) {
        terms.set(name, []);
        smoothTerm.set(name, smoother());
      }
      terms.get(name)!.push(smoothTerm.get(name)!(value));
    }
  }
  return curve;
}

function parseLine(line: string, where: string): { step: number; loss: number } & Record<string, unknown> {
  let row: Record<string, unknown> | null;
  try {
    row = JSON.parse(line);
  } catch (cause) {
    throw new FormatError(where, `is not valid JSON: ${(cause as Error).message}.`, { cause });
  }
  if (typeof row?.step !== "number" || typeof row.loss !== "number") {
    throw new FormatError(where, 'must have a "step" and a "loss".');
  }
  return { ...row, step: row.step, loss: row.loss };
}

/** A running mean m ← s·m + (1 − s)·x, divided by 1 − sᵏ after k values. */
export function smoother(smoothing = SMOOTHING): (value: number) => number {
  let mean = 0;
  let weight = 0;
  return (value) => {
    mean = smoothing * mean + (1 - smoothing) * value;
    weight = smoothing * weight + (1 - smoothing);
    return mean / weight;
  };
}

/** Draws a run's losses into `loss.png`. @returns Its path, or undefined where there are too few steps for a curve. */
export async function drawLosses(output: string): Promise<string | undefined> {
  const { steps, losses, smoothed, terms } = await readLosses(output);
  if (steps.length < 2) return undefined;
  const path = outputPath(output, "lossPlot");
  const picture = await renderPlot({
    title: "Training loss",
    xLabel: "step",
    yLabel: "loss",
    series: [
      { label: "each step", x: steps, y: losses, faint: true, color: "#0072b2" },
      { label: "smoothed", x: steps, y: smoothed, color: "#0072b2" },
      // A single term is the loss itself.
      ...(terms.size > 1 ? [...terms].map(([label, y]) => ({ label, x: steps.slice(-y.length), y })) : []),
    ],
  });
  await writePng(path, picture);
  return path;
}
