// What computes a training: versions, machine and threads. A resumed run is promised the same numbers only where these are
// the same. Node only.

import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { env } from "onnxruntime-common";
import { isObject } from "../storage/json.js";

/** By what it is called in messages. */
export type Engine = Readonly<Record<string, string>>;

const packageOf = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  version: string;
};

/** This library's version. */
export const LIBRARY_VERSION = packageOf.version;

/** Of an engine: how many processes divide a batch between them. Left out for one. */
const RANKS = "ranks";

/**
 * The engine of this process.
 *
 * @param runtime - The model's. Where threads are left out, they are the machine's.
 * @param ranks - Processes that train together.
 */
export function currentEngine(
  runtime: { device?: unknown; threads?: number | undefined } = {},
  ranks: number | undefined = undefined,
): Engine {
  return {
    ...(ranks !== undefined && ranks > 1 && { [RANKS]: String(ranks) }),
    fera: LIBRARY_VERSION,
    "ONNX Runtime": env.versions.common,
    machine: `${process.platform} ${process.arch}`,
    device: String(runtime.device ?? "cpu"),
    threads: String(runtime.threads ?? availableParallelism()),
  };
}

/** Undefined where a file's value is none. */
export function parsedEngine(value: unknown): Engine | undefined {
  if (!isObject(value) || !Object.values(value).every((text) => typeof text === "string")) return undefined;
  return value as Engine;
}

/**
 * What a run that goes on with another engine can promise, and what it cannot; undefined where it is the same one.
 *
 * @param before - The checkpoint's; undefined where it does not say.
 */
export function engineChange(before: Engine | undefined, now: Engine): string | undefined {
  const names = [...new Set([...Object.keys(before ?? {}), ...Object.keys(now)])];
  const told = (engine: Engine | undefined, name: string) => engine?.[name] ?? (name === RANKS ? "1" : "not noted");
  const changes = names
    .filter((name) => told(before, name) !== told(now, name))
    .map((name) => `${name} was ${told(before, name)}, is ${told(now, name)}`);
  if (changes.length === 0) return undefined;
  return (
    `the checkpoint was made by another engine: ${changes.join("; ")}. The training goes on with the same weights, ` +
    "optimizer state, order of images, noise and timesteps; its numbers may differ in the last digits from those of a run " +
    "that was never cut off."
  );
}
