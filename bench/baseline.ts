// The baseline: the same step in PyTorch and diffusers, in a process of its own.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Measured, measure } from "./measured-process.js";
import { peakAnonymousBytes } from "./memory.js";
import { BENCH_FOLDER } from "./sd15-weights.js";
import { median } from "./statistics.js";

/** How PyTorch runs the step. */
export const BASELINE_MODES = ["eager", "channels-last", "compile", "bf16"] as const;

export type BaselineMode = (typeof BASELINE_MODES)[number];

/** What bench/baseline/sd15_step.py gives. */
export interface BaselineResult {
  firstSeconds: number;
  seconds: number[];
  /** Time that the processors worked. */
  cpuSeconds: number[];
  baseSeconds: number[];
  baseCpuSeconds: number[];
  losses: number[];
  peakBytes: number;
  /** Number of trained values. */
  trained: number;
  versions: Record<string, string>;
}

/** Which Python, and how long one process may take. */
export interface BaselineOptions {
  python: string;
  threads: number;
  runs: number;
  timeoutSeconds: number;
}

/** The Python of the baseline's environment: the option, `FERA_BASELINE_PYTHON`, or what bench/baseline/setup.sh made. */
export function baselinePython(option?: string): string {
  const python = option ?? process.env.FERA_BASELINE_PYTHON ?? join(BENCH_FOLDER, "baseline", "bin", "python");
  if (!existsSync(python)) {
    throw new Error(`${python}: no such file. Run bench/baseline/setup.sh, or name a Python with torch and diffusers.`);
  }
  return python;
}

/** Runs the baseline once. @throws {Error} With the end of its complaint, if it fails. */
export function measureBaseline(
  mode: BaselineMode,
  files: { model: string; inputs: string },
  { python, threads, runs, timeoutSeconds }: BaselineOptions,
): Promise<Measured<BaselineResult>> {
  const program = fileURLToPath(new URL("./baseline/sd15_step.py", import.meta.url));
  const args = [program, "--model", files.model, "--inputs", files.inputs, "--mode", mode];
  args.push("--runs", String(runs), "--threads", String(threads));
  const env = {
    OMP_NUM_THREADS: String(threads),
    HF_HUB_OFFLINE: "1",
    // What torch.compile makes is kept, so that only the first round waits for it.
    TORCHINDUCTOR_CACHE_DIR: join(BENCH_FOLDER, "inductor"),
  };
  return measure<BaselineResult>(python, args, { env, timeoutSeconds });
}

/** What a mode's rounds add up to. */
export interface BaselineSummary {
  mode: BaselineMode;
  stepSeconds: number;
  cpuSeconds: number;
  baseSeconds: number;
  baseCpuSeconds: number;
  firstStepSeconds: number;
  peakBytes: number;
  anonymousBytes?: number;
  /** Of the first round, by phase. */
  memory: Measured<BaselineResult>["memory"];
  versions: Record<string, string>;
  losses: number[];
}

/** Medians over all rounds, peaks over all. */
export function summarizeBaseline(mode: BaselineMode, rounds: readonly Measured<BaselineResult>[]): BaselineSummary {
  const results = rounds.map(({ result }) => result);
  const anonymous = rounds.map(({ memory: { base: _base, ...memory } }) => peakAnonymousBytes(memory) ?? 0);
  return {
    mode,
    stepSeconds: median(results.flatMap(({ seconds }) => seconds)),
    cpuSeconds: median(results.flatMap(({ cpuSeconds }) => cpuSeconds)),
    baseSeconds: median(results.flatMap(({ baseSeconds }) => baseSeconds)),
    baseCpuSeconds: median(results.flatMap(({ baseCpuSeconds }) => baseCpuSeconds)),
    firstStepSeconds: median(results.map(({ firstSeconds }) => firstSeconds)),
    peakBytes: Math.max(...results.map(({ peakBytes }) => peakBytes)),
    anonymousBytes: Math.max(...anonymous) || undefined,
    memory: rounds[0]!.memory,
    versions: results[0]!.versions,
    losses: results[0]!.losses,
  };
}
