// Checkpoints: one safetensors file each, with parameters, optimizer state, average and the stream's state. Node only.

import { access, constants, readdir, rename, unlink } from "node:fs/promises";
import { join } from "node:path";
import { FormatError, TrainingError } from "../errors.js";
import { sameShape } from "../graph/index.js";
import { makeFolder, reasonOf } from "../storage/file-access.js";
import { readSafetensors, writeSafetensors } from "../storage/tensor-file.js";
import type { Tensor } from "../tensor/tensor.js";
import { type Engine, parsedEngine } from "./engine.js";
import type { LossScaleState } from "./loss-scale.js";

/** What a training is made of at a step's end. */
export interface Checkpoint {
  /** Optimizer steps done. */
  step: number;
  parameters: ReadonlyMap<string, Tensor<"float32">>;
  optimizer: ReadonlyMap<string, Tensor>;
  average?: ReadonlyMap<string, Tensor<"float32">>;
  /** State of the batch stream, as JSON. */
  stream: unknown;
  /** What must agree for a resumed run to be the same run. */
  fingerprint: string;
  /** What computed it. */
  engine?: Engine | undefined;
  /** The step with the lowest validation loss so far. */
  best?: { step: number; loss: number } | undefined;
  /** Groups of batches drawn so far, those of skipped steps included. */
  drawn?: number;
  /** The factor on the loss, in mixed precision. */
  lossScale?: LossScaleState | undefined;
  /** Numbers of those that are left out, because a loss or gradient was not finite. */
  skipped?: readonly number[];
}

/** Of the header; a file without one is of the first. */
const FORMAT = 1;

const NAME = /^checkpoint-(\d{8})\.safetensors$/;
/** Behind the name of a checkpoint that could not be read. */
const DAMAGED = ".damaged";

/** Says before training starts that a folder cannot be written. @throws {TrainingError} */
export async function prepareOutputFolder(folder: string): Promise<void> {
  try {
    await makeFolder(folder);
    await access(folder, constants.W_OK);
  } catch (cause) {
    const reason = reasonOf(cause as NodeJS.ErrnoException);
    throw new TrainingError(`output folder ${folder}: cannot be written: ${reason}. Choose another one.`, { cause });
  }
}

/** Writes a checkpoint under a temporary name, flushes and renames it: it is there whole or not at all. @returns Its path. */
export async function saveCheckpoint(folder: string, checkpoint: Checkpoint): Promise<string> {
  const tensors = new Map<string, Tensor>();
  for (const [name, tensor] of checkpoint.parameters) tensors.set(`parameter.${name}`, tensor);
  for (const [name, tensor] of checkpoint.optimizer) tensors.set(`optimizer.${name}`, tensor);
  for (const [name, tensor] of checkpoint.average ?? []) tensors.set(`average.${name}`, tensor);
  const path = checkpointPath(folder, checkpoint.step);
  const { parameters: _p, optimizer: _o, average: _a, ...state } = checkpoint;
  await makeFolder(folder);
  await writeSafetensors(path, tensors, { fera_checkpoint: JSON.stringify({ format: FORMAT, ...state }) });
  return path;
}

/**
 * Deletes a folder's checkpoints but the newest.
 *
 * @param keep - How many of the newest stay.
 * @param best - The step of one more that stays.
 */
export async function pruneCheckpoints(folder: string, keep: number, best?: number): Promise<void> {
  for (const name of (await checkpointNames(folder)).slice(0, -keep)) {
    if (Number(NAME.exec(name)![1]) !== best) await unlink(join(folder, name));
  }
}

/** A folder's checkpoint of a step. */
export const checkpointPath = (folder: string, step: number): string =>
  join(folder, `checkpoint-${String(step).padStart(8, "0")}.safetensors`);

/** The newest checkpoint of a folder, or undefined where there is none. */
export async function latestCheckpoint(folder: string): Promise<string | undefined> {
  const last = (await checkpointNames(folder)).at(-1);
  return last === undefined ? undefined : join(folder, last);
}

/** The newest checkpoint that can be read. */
export interface NewestCheckpoint {
  path: string;
  checkpoint: Checkpoint;
  /** Newer ones that cannot be, the newest first. */
  damaged: { path: string; reason: string }[];
}

/**
 * Reads the newest checkpoint of a folder, or the one before where it is damaged.
 *
 * @returns Undefined where there is none.
 * @throws {TrainingError} If there are some, and none can be read.
 */
export async function readNewestCheckpoint(folder: string): Promise<NewestCheckpoint | undefined> {
  const damaged: NewestCheckpoint["damaged"] = [];
  for (const name of (await checkpointNames(folder)).reverse()) {
    const path = join(folder, name);
    try {
      return { path, checkpoint: await readCheckpoint(path), damaged };
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      damaged.push({ path, reason: error.message });
    }
  }
  if (damaged.length === 0) return undefined;
  throw new TrainingError(
    `no checkpoint can be read, so that the training cannot go on: ${damaged.map(({ reason }) => reason).join(" ")} ` +
      "Put a whole copy back, or start anew in another output folder.",
  );
}

/** Renames a damaged checkpoint, so that it counts as none. @returns Its new path. */
export async function setAside(path: string): Promise<string> {
  await rename(path, path + DAMAGED);
  return path + DAMAGED;
}

/**
 * Reads a checkpoint.
 *
 * @param bytes - Its file's, where they are here already.
 * @throws {FormatError} If it is not one.
 */
export async function readCheckpoint(path: string, bytes?: Uint8Array): Promise<Checkpoint> {
  const { tensors, metadata } = await readSafetensors(bytes ?? path);
  const text = metadata.fera_checkpoint;
  if (text === undefined) throw new FormatError(path, "is no training checkpoint (its header has no fera_checkpoint).");
  let state: Omit<Checkpoint, "parameters" | "optimizer" | "average"> & { format?: unknown };
  try {
    state = JSON.parse(text);
  } catch (cause) {
    throw new FormatError(path, "its fera_checkpoint header is not JSON.", { cause });
  }
  const format = state?.format ?? FORMAT;
  if (typeof format === "number" && format > FORMAT) {
    throw new TrainingError(
      `${path}: was written by a newer version of fera (format ${format}; this one reads ${FORMAT}). Resume with that version.`,
    );
  }
  if (!Number.isSafeInteger(state?.step) || typeof state.fingerprint !== "string") {
    throw new FormatError(path, "its fera_checkpoint header lacks the step or the settings.");
  }
  const part = (prefix: string) =>
    new Map(
      [...tensors]
        .filter(([name]) => name.startsWith(prefix))
        .map(([name, value]) => [name.slice(prefix.length), value]),
    );
  const average = part("average.") as Map<string, Tensor<"float32">>;
  const { best, drawn, skipped } = state;
  const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0;
  const isSound =
    (best === undefined || (isCount(best?.step) && Number.isFinite(best.loss))) &&
    (drawn === undefined || isCount(drawn)) &&
    (skipped === undefined || (Array.isArray(skipped) && skipped.every(isCount)));
  if (!isSound) throw new FormatError(path, "its fera_checkpoint header has a malformed best, drawn or skipped.");
  return {
    ...state,
    engine: parsedEngine(state.engine),
    parameters: part("parameter.") as Map<string, Tensor<"float32">>,
    optimizer: part("optimizer."),
    average: average.size > 0 ? average : undefined,
  };
}

/** Copies saved values into current ones of the same names and shapes. @throws {TrainingError} Naming the first that differs. */
export function restoreInto(
  current: ReadonlyMap<string, Tensor<"float32">>,
  loaded: ReadonlyMap<string, Tensor<"float32">>,
  path: string,
): void {
  for (const [name, tensor] of current) {
    const saved = loaded.get(name);
    if (!saved || !sameShape(saved.shape, tensor.shape)) {
      const came = saved ? `[${saved.shape.join(",")}]` : "nothing";
      throw new TrainingError(
        `${path}: the checkpoint is of another training: "${name}" must be [${tensor.shape.join(",")}]; got ${came}.`,
      );
    }
  }
  for (const [name, tensor] of current) tensor.data.set(loaded.get(name)!.data);
}

/** Deletes a folder's checkpoints, those set aside too, and nothing else. */
export async function clearCheckpoints(folder: string): Promise<void> {
  for (const name of await namesIn(folder)) {
    const whole = name.endsWith(DAMAGED) ? name.slice(0, -DAMAGED.length) : name;
    if (NAME.test(whole)) await unlink(join(folder, name));
  }
}

const checkpointNames = async (folder: string): Promise<string[]> =>
  (await namesIn(folder)).filter((name) => NAME.test(name)).sort();

const namesIn = (folder: string): Promise<string[]> => readdir(folder).catch(() => []);
