// A process that does one run and ends: its peak memory is that run's, and what kills it harms no other. Started by
// `executeInProcess`, with a channel for messages.

import "../runtime/node.js";
import "../storage/node.js";
import { FeraError } from "../errors.js";
import { describeSystemError } from "../storage/file-access.js";
import { executeRun } from "./execute-run.js";
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

process.once("message", async ({ spec, threads }: RunOrder) => {
  let toldAt = Number.NEGATIVE_INFINITY;
  try {
    const record = await executeRun(spec, {
      threads,
      signal: controller.signal,
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
  }
  process.exit();
});
// The study has gone, or wants this run to end. Ctrl-C in a terminal reaches this process too; the study then ends it.
const end = () => {
  controller.abort();
  setTimeout(() => process.exit(1), ENDING_MS).unref();
};
process.on("disconnect", end);
process.on("SIGTERM", end);
for (const signal of ["SIGINT", "SIGHUP"] as const) process.on(signal, () => undefined);
