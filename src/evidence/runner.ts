// Does what a plan has and what is not there yet, in one process or several. Every run's record is a file as soon as it is
// done, so that whatever is killed loses the runs under way and nothing else.

import type { Plan } from "./plan.js";
import type { RunRecord, RunSpec } from "./records.js";
import { runTimes } from "./run-times.js";

/** Does one run, wherever. Rejects where it failed; with the signal's reason where that ended it. */
export type Execute = (
  spec: RunSpec,
  options: { signal?: AbortSignal | undefined; onProgress?: (phase: string, done: number, of: number) => void },
) => Promise<RunRecord>;

/** How far a study is. */
export interface StudyProgress {
  /** Runs that are there, those of earlier times included. */
  done: number;
  /** As far as it is known. */
  total: number;
  /** What is under way, in words. */
  running: string[];
  secondsLeft: number;
}

/** Settings of {@link runStudy}. */
export interface RunnerOptions {
  /** What there is to do, given what has been found; asked again when all of it is done. */
  plan: (records: ReadonlyMap<string, RunRecord>, isEstimate: boolean) => Plan;
  /** What is there already; new ones are added. */
  records: Map<string, RunRecord>;
  execute: Execute;
  /** Keeps a record before it counts. */
  keep: (record: RunRecord) => Promise<void>;
  /** Runs at the same time; those that time steps are alone. */
  processes: number;
  /** No run is begun after so many minutes. */
  minutes?: number | undefined;
  onProgress?: (progress: StudyProgress) => void;
  onMessage?: (message: string) => void;
  signal?: AbortSignal | undefined;
}

/** What did not work. */
export interface Failure {
  spec: RunSpec;
  reason: Error;
}

/**
 * Does all runs that are not there.
 *
 * A run that fails is told and left out, and the others go on.
 *
 * @returns Also how many runs are left, where time was up.
 * @throws The signal's reason, once the runs under way have ended.
 */
export async function runStudy(options: RunnerOptions): Promise<{ failures: Failure[]; left: number }> {
  const { records, execute, keep, processes, onProgress, onMessage, signal } = options;
  const failures: Failure[] = [];
  const endsAt = performance.now() + 60_000 * (options.minutes ?? Number.POSITIVE_INFINITY);
  const isTimeUp = () => performance.now() >= endsAt;
  const running = new Map<string, string>();
  const isOpen = ({ id }: RunSpec) => !records.has(id) && !failures.some(({ spec }) => spec.id === id);
  const left = () => {
    const { runs } = options.plan(records, true);
    const estimate = runTimes(records.values());
    const open = runs.filter(({ id }) => !records.has(id));
    const seconds = open.filter(isOpen).reduce((sum, run) => sum + estimate(run), 0);
    return { total: runs.length, done: runs.length - open.length, seconds };
  };
  let known = left();
  const report = () =>
    onProgress?.({
      done: known.done,
      total: known.total,
      running: [...running.values()],
      secondsLeft: known.seconds / processes,
    });

  const doRun = async (spec: RunSpec): Promise<void> => {
    const name = spec.id.replace(/--[0-9a-f]+$/, "").replaceAll("--", " ");
    running.set(spec.id, name);
    report();
    try {
      const record = await execute(spec, {
        ...(signal && { signal }),
        onProgress: (phase, done, of) => {
          running.set(spec.id, `${name}: ${phase} ${done}/${of}`);
          report();
        },
      });
      await keep(record);
      records.set(spec.id, record);
    } catch (error) {
      signal?.throwIfAborted();
      const reason = error instanceof Error ? error : new Error(String(error));
      failures.push({ spec, reason });
      onMessage?.(`${name} failed and is left out: ${reason.message}`);
    } finally {
      running.delete(spec.id);
    }
    known = left();
    report();
  };

  for (;;) {
    signal?.throwIfAborted();
    const open = options.plan(records, false).runs.filter(isOpen);
    if (open.length === 0 || isTimeUp()) return { failures, left: known.total - known.done };
    const timing = open.filter(({ measures }) => measures === "speed");
    // Timings are compared with each other: one of each method, and again, so that a slow minute harms none alone.
    timing.sort((a, b) => a.seed - b.seed);
    for (const spec of timing) {
      if (isTimeUp()) break;
      signal?.throwIfAborted();
      await doRun(spec);
    }
    const queue = open.filter(({ measures }) => measures !== "speed");
    const worker = async (): Promise<void> => {
      for (let spec = queue.shift(); spec && !isTimeUp(); spec = queue.shift()) {
        signal?.throwIfAborted();
        await doRun(spec);
      }
    };
    const ended = await Promise.allSettled(Array.from({ length: processes }, worker));
    const broken = ended.find((result) => result.status === "rejected");
    if (broken) throw broken.reason;
  }
}
