// Does a run in a process of its own.

import { fork } from "node:child_process";
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

/** @param threads - Of every process. */
export function executeInProcess(threads: number): Execute {
  return (spec, { signal, onProgress }) =>
    new Promise<RunRecord>((resolve, reject) => {
      const child = fork(PROGRAM, { serialization: "advanced" });
      // Its temporary files go with it, where it has the time.
      const end = () => {
        child.kill("SIGTERM");
        setTimeout(() => child.kill("SIGKILL"), ENDING_MS).unref();
      };
      signal?.addEventListener("abort", end, { once: true });
      let record: RunRecord | undefined;
      let failure: string | undefined;
      child.on("message", (report: RunReport) => {
        if (report.kind === "progress") onProgress?.(report.phase, report.done, report.of);
        else if (report.kind === "done") record = report.record;
        else failure = report.message;
      });
      child.once("error", reject);
      child.once("exit", (code, killedBy) => {
        signal?.removeEventListener("abort", end);
        if (record) resolve(record);
        else if (signal?.aborted) reject(signal.reason);
        else reject(new TrainingError(failure ?? `its process ended with ${killedBy ?? `code ${code}`}.`));
      });
      child.send({ spec, threads } satisfies RunOrder);
    });
}
