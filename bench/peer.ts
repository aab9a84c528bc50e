// The peer: the same step in PyTorch and diffusers, in a process of its own.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Measured, measure } from "./measured-process.js";
import { peakAnonymousBytes } from "./memory.js";
import { BENCH_FOLDER } from "./sd15-weights.js";
import { median } from "./statistics.js";

/** How PyTorch runs the step. */
export const PEER_MODES = ["eager", "channels-last", "compile"] as const;

export type PeerMode = (typeof PEER_MODES)[number];

/** What bench/peer/sd15_step.py gives. */
export interface PeerResult {
  firstSeconds: number;
  seconds: number[];
  baseSeconds: number[];
  losses: number[];
  peakBytes: number;
  /** Number of trained values. */
  trained: number;
  versions: Record<string, string>;
}

/** Which Python, and how long one process may take. */
export interface PeerOptions {
  python: string;
  threads: number;
  runs: number;
  timeoutSeconds: number;
}

/** The Python of the peer's environment: the option, `FERA_PEER_PYTHON`, or what bench/peer/setup.sh made. */
export function peerPython(option?: string): string {
  const python = option ?? process.env.FERA_PEER_PYTHON ?? join(BENCH_FOLDER, "peer", "bin", "python");
  if (!existsSync(python)) {
    throw new Error(`${python}: no such file. Run bench/peer/setup.sh, or name a Python with torch and diffusers.`);
  }
  return python;
}

/** Runs the peer once. @throws {Error} With the end of its complaint, if it fails. */
export function measurePeer(
  mode: PeerMode,
  files: { model: string; inputs: string },
  { python, threads, runs, timeoutSeconds }: PeerOptions,
): Promise<Measured<PeerResult>> {
  const program = fileURLToPath(new URL("./peer/sd15_step.py", import.meta.url));
  const args = [program, "--model", files.model, "--inputs", files.inputs, "--mode", mode];
  args.push("--runs", String(runs), "--threads", String(threads));
  const env = {
    OMP_NUM_THREADS: String(threads),
    HF_HUB_OFFLINE: "1",
    // What torch.compile makes is kept, so that only the first round waits for it.
    TORCHINDUCTOR_CACHE_DIR: join(BENCH_FOLDER, "inductor"),
  };
  return measure<PeerResult>(python, args, { env, timeoutSeconds });
}

/** What a mode's rounds add up to. */
export interface PeerSummary {
  mode: PeerMode;
  stepSeconds: number;
  baseSeconds: number;
  firstStepSeconds: number;
  peakBytes: number;
  anonymousBytes?: number;
  /** Of the first round, by phase. */
  memory: Measured<PeerResult>["memory"];
  versions: Record<string, string>;
  losses: number[];
}

/** Medians over all rounds, peaks over all. */
export function summarizePeer(mode: PeerMode, rounds: readonly Measured<PeerResult>[]): PeerSummary {
  const results = rounds.map(({ result }) => result);
  const anonymous = rounds.map(({ memory: { base: _base, ...memory } }) => peakAnonymousBytes(memory) ?? 0);
  return {
    mode,
    stepSeconds: median(results.flatMap(({ seconds }) => seconds)),
    baseSeconds: median(results.flatMap(({ baseSeconds }) => baseSeconds)),
    firstStepSeconds: median(results.map(({ firstSeconds }) => firstSeconds)),
    peakBytes: Math.max(...results.map(({ peakBytes }) => peakBytes)),
    anonymousBytes: Math.max(...anonymous) || undefined,
    memory: rounds[0]!.memory,
    versions: results[0]!.versions,
    losses: results[0]!.losses,
  };
}
