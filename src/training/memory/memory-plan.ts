// What a command will take of memory, phase by phase, and how it keeps below a limit. Node only.

import { ConfigError } from "../../errors.js";
import { rehearsedBytes } from "../../runtime/rehearsal.js";

/** What a phase of a command is expected to take. */
export interface MemoryPhase {
  name: string;
  /** Of resident memory, at its peak; all of the process. */
  bytes: number;
  /** What is done to keep below the limit. */
  note?: string;
}

/** A command's phases, in order. */
export interface MemoryPlan {
  limitBytes: number;
  phases: readonly MemoryPhase[];
}

/** The runtime's own, its thread, what JavaScript leaves behind while graphs are built, and what is not known better. */
const BESIDE_MODELS_BYTES = 300e6;

const UNITS: Readonly<Record<string, number>> = { MB: 1e6, GB: 1e9, MIB: 2 ** 20, GIB: 2 ** 30 };

/** "6GB", "800 MB", "1.5GiB". */
export const MEMORY_SIZE = /^\s*(\d+(?:\.\d+)?)\s*([MG]i?B)\s*$/i;

/** The bytes that a text of {@link MEMORY_SIZE} says. */
export function memoryBytes(text: string): number {
  const [, amount, unit] = MEMORY_SIZE.exec(text) ?? [];
  const bytes = Number(amount) * (UNITS[unit?.toUpperCase() ?? ""] ?? Number.NaN);
  if (bytes > 0) return bytes;
  throw new ConfigError(`memoryLimit: must be a size such as 6GB or 800MB; got ${JSON.stringify(text)}.`);
}

/** As people read it: "5.3 GB". */
export const memoryText = (bytes: number): string =>
  bytes < 0.995e9 ? `${Math.ceil(bytes / 1e6)} MB` : `${(Math.ceil(bytes / 1e8) / 10).toFixed(1)} GB`;

/** Adds up what phases will take, on top of what the process has already. */
export class MemoryEstimate {
  private readonly baseBytes: number;

  constructor(readonly limitBytes: number) {
    this.baseBytes = process.memoryUsage().rss + BESIDE_MODELS_BYTES;
  }

  /** All that some work takes while nothing else is loaded. @param besideBytes - What else is there meanwhile. */
  async of(work: () => Promise<unknown>, besideBytes = 0): Promise<number> {
    return this.baseBytes + besideBytes + (await rehearsedBytes(work));
  }

  /** What the models of some work take, alone. */
  models(work: () => Promise<unknown>): Promise<number> {
    return rehearsedBytes(work);
  }

  /** All of the process, where models take so much. */
  withModels(bytes: number): number {
    return this.baseBytes + bytes;
  }

  fits(bytes: number): boolean {
    return bytes <= this.limitBytes;
  }

  /** @throws {ConfigError} Always: what it is for does not fit. @param ways - What would. */
  refuse(what: string, bytes: number, ways: readonly string[]): never {
    const instead =
      ways.length > 0
        ? ` What would fit: ${ways.join("; or ")}.`
        : " Nothing smaller would fit either: most of it are the model's weights.";
    throw new ConfigError(
      `memory limit ${memoryText(this.limitBytes)}: ${what} would take ${memoryText(bytes)}.${instead} ` +
        `Otherwise raise the limit to ${memoryText(bytes)}.`,
    );
  }
}
