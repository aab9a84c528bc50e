// A process that does runs, one after the other, until it is told to end: the model is loaded and the drawings are encoded once.
// A run that is to be alone is its process's only one, so that the peak memory is that run's. Started by `RunProcesses`, with a
// channel for messages.

import "../runtime/node.js";
import "../storage/node.js";
import { FeraError } from "../errors.js";
import { describeSystemError } from "../storage/file-access.js";
import { executeRun } from "./execute-run.js";
import { RunContext } from "./run-context.js";
import type { RunOrder, RunReport } from "./run-messages.js";

const PROGRESS_MS = 500;
/** A run that was ended has so long to clear up. */
const ENDING_MS = 8_000;

const tell = (report: RunReport): Promise<void> =>
  new Promise((resolve) => {
    if (process.send && process.connected) process.send(report, () => resolve());
    else resolve();
  });

const controller = new AbortController();

let context: RunContext | undefined;
let isBusy = false;

process.on("message", async ({ spec, threads, isAlone }: RunOrder) => {
  isBusy = true;
  let toldAt = Number.NEGATIVE_INFINITY;
  if (!isAlone) context ??= new RunContext(threads);
  try {
    const record = await executeRun(spec, {
      ...{ threads, context, signal: controller.signal },
      onProgress: (phase, done, of) => {
        const now = performance.now();
        if (now - toldAt < PROGRESS_MS) return;
        toldAt = now;
        void tell({ kind: "progress", phase, done, of });
      },
    });
    await tell({ kind: "done", record });
  } catch (error) {
    const known = error instanceof FeraError ? error.message : describeSystemError(error);
    await tell({ kind: "failed", message: known ?? String((error as Error).stack ?? error) });
    process.exit();
  }
  isBusy = false;
  if (isAlone || controller.signal.aborted) process.exit();
});
// The study has gone, or wants this process to end. Ctrl-C in a terminal reaches this process too; the study then ends it.
const end = () => {
  if (!isBusy) process.exit();
  controller.abort();
  setTimeout(() => process.exit(1), ENDING_MS).unref();
};
process.on("disconnect", end);
process.on("SIGTERM", end);
for (const signal of ["SIGINT", "SIGHUP"] as const) process.on(signal, () => undefined);
