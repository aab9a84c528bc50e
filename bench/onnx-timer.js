// Preloaded into a measured process (`node --import`): in the worker threads that own ONNX Runtime's sessions it times every
// session and every run from inside, and tells the main thread over a channel.

import { BroadcastChannel, isMainThread } from "node:worker_threads";

/** @typedef {(...args: unknown[]) => Promise<unknown>} Work */

if (!isMainThread) {
  const { onnxRuntime: ort } = await import("../src/runtime/onnxruntime.js");
  // The type hides that this is a class, whose methods can be replaced.
  const sessions = /** @type {{ create: Work, prototype: { run: Work } }} */ (
    /** @type {unknown} */ (ort.InferenceSession)
  );
  const channel = new BroadcastChannel("onnx-timer");
  channel.unref();

  // The same clock in every thread.
  const now = () => (performance.timeOrigin + performance.now()) / 1000;

  /** @type {(kind: "create" | "run", work: Work) => Work} */
  const timed = (kind, work) =>
    /** @this {unknown} @param {unknown[]} args */
    async function timedWork(...args) {
      const startedAt = now();
      try {
        return await work.apply(this, args);
      } finally {
        channel.postMessage({ kind, startedAt, endedAt: now() });
      }
    };

  sessions.create = timed("create", sessions.create);
  sessions.prototype.run = timed("run", sessions.prototype.run);
}
