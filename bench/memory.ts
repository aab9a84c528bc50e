// Memory of a process, anonymous and file-backed apart, as Linux counts it. Elsewhere there is nothing to sample.
//
// Anonymous pages are what a program needs; file-backed ones are weights that lie in the page cache and can be dropped.

import { readFileSync } from "node:fs";

/** Bytes that a process holds now, and the most it has held. */
export interface MemoryUse {
  anonymousBytes: number;
  fileBytes: number;
  /** Anonymous, file-backed and shared together. */
  residentBytes: number;
  /** Largest `residentBytes` since the program began, kept by the kernel. */
  peakBytes: number;
}

/** Reads the text of `/proc/PID/status`; undefined where a field is missing, as for a process that has ended. */
export function parseStatus(text: string): MemoryUse | undefined {
  const field = (name: string): number => {
    const kilobytes = new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(text)?.[1];
    return kilobytes === undefined ? Number.NaN : Number(kilobytes) * 1024;
  };
  const use: MemoryUse = {
    anonymousBytes: field("RssAnon"),
    fileBytes: field("RssFile"),
    residentBytes: field("VmRSS"),
    peakBytes: field("VmHWM"),
  };
  return Object.values(use).some(Number.isNaN) ? undefined : use;
}

/** What a process holds now. */
export function memoryOf(pid: number | "self"): MemoryUse | undefined {
  try {
    return parseStatus(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return undefined;
  }
}

/** Most memory that this process has held. */
export const ownPeakBytes = (): number => memoryOf("self")?.peakBytes ?? process.resourceUsage().maxRSS * 1024;

/** The largest values seen in one phase of a program. */
export type PhaseMemory = Pick<MemoryUse, "anonymousBytes" | "fileBytes" | "residentBytes">;

/** Watches another process from outside, so that what is measured is not slowed and both sides are measured alike. */
export class MemorySampler {
  /** By phase, in the order in which they began. */
  readonly phases = new Map<string, PhaseMemory>();
  private current = "start";
  private readonly timer: NodeJS.Timeout;

  constructor(
    private readonly pid: number,
    intervalMs = 20,
  ) {
    this.timer = setInterval(() => this.sample(), intervalMs);
  }

  /** What follows counts towards a phase of this name. */
  begin(phase: string): void {
    this.sample();
    this.current = phase;
    this.sample();
  }

  stop(): void {
    clearInterval(this.timer);
  }

  private sample(): void {
    const use = memoryOf(this.pid);
    if (!use) return;
    const known = this.phases.get(this.current) ?? { anonymousBytes: 0, fileBytes: 0, residentBytes: 0 };
    for (const key of ["anonymousBytes", "fileBytes", "residentBytes"] as const) {
      known[key] = Math.max(known[key], use[key]);
    }
    this.phases.set(this.current, known);
  }
}

/** Largest anonymous memory over all phases; undefined where nothing could be sampled. */
export function peakAnonymousBytes(phases: Readonly<Record<string, PhaseMemory>>): number | undefined {
  const values = Object.values(phases).map(({ anonymousBytes }) => anonymousBytes);
  return values.length === 0 ? undefined : Math.max(...values);
}
