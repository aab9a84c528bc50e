// Does runs in processes of their own: what kills one of them harms no other run, nor the study.

import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { TrainingError } from "../errors.js";
import type { RunRecord } from "./records.js";
import type { RunOrder, RunReport } from "./run-messages.js";
import type { Execute } from "./runner.js";

/** The built program; where the sources are run as they are, what loads them loads this one too. */
const PROGRAM = fileURLToPath(
  new URL(`./run-process${import.meta.url.endsWith(".ts") ? ".ts" : ".js"}`, import.meta.url),
);

/** A step takes less. */
const ENDING_MS = 10_000;
/** Runs of a process before a new one takes its place, so that what leaks does not add up. */
const MOST_RUNS = 40;

/** Processes that wait for their next run. */
export class RunProcesses {
  private readonly idle: { child: ChildProcess; runs: number }[] = [];

  /** @param threads - Of every process. */
  constructor(private readonly threads: number) {}

  /** Does a run in a process that waits, or in a new one. Timings have one to themselves, as memory is measured there. */
  readonly execute: Execute = (spec, { signal, onProgress }) =>
    new Promise<RunRecord>((resolve, reject) => {
      const isAlone = spec.measures === "speed";
      const { child, runs } = (isAlone ? undefined : this.waiting()) ?? { child: started(), runs: 0 };
      let record: RunRecord | undefined;
      let failure: string | undefined;
      // Its temporary files go with it, where it has the time.
      const end = () => {
        child.kill("SIGTERM");
        setTimeout(() => child.kill("SIGKILL"), ENDING_MS).unref();
      };
      const onMessage = (report: RunReport) => {
        if (report.kind === "progress") onProgress?.(report.phase, report.done, report.of);
        else if (report.kind === "failed") failure = report.message;
        else {
          record = report.record;
          if (isAlone) return;
          leave();
          if (runs + 1 < MOST_RUNS && !signal?.aborted) this.idle.push({ child, runs: runs + 1 });
          else end();
          resolve(record);
        }
      };
      const onExit = (code: number | null, killedBy: NodeJS.Signals | null) => {
        leave();
        if (record) resolve(record);
        else if (signal?.aborted) reject(signal.reason);
        else reject(new TrainingError(failure ?? `its process ended with ${killedBy ?? `code ${code}`}.`));
      };
      const leave = () => {
        signal?.removeEventListener("abort", end);
        child.off("message", onMessage).off("error", reject).off("exit", onExit);
      };
      signal?.addEventListener("abort", end, { once: true });
      child.on("message", onMessage).once("error", reject).once("exit", onExit);
      child.send({ spec, threads: this.threads, isAlone } satisfies RunOrder);
    });

  /** Ends the processes that wait. */
  close(): void {
    for (const { child } of this.idle.splice(0)) child.kill("SIGTERM");
  }

  /** One that waits and has not ended meanwhile. */
  private waiting(): { child: ChildProcess; runs: number } | undefined {
    for (let next = this.idle.pop(); next; next = this.idle.pop()) if (next.child.connected) return next;
    return undefined;
  }
}

function started(): ChildProcess {
  const child = fork(PROGRAM, { serialization: "advanced" });
  // What befalls one that waits shows as its end, when the next run looks for one.
  return child.on("error", () => {});
}
