// The worker thread that owns ONNX Runtime sessions in Node: `run` blocks the thread it is called on, and this one has
// nothing else to do. Plain JavaScript, so that it also runs unbuilt under the tests.

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { parentPort } from "node:worker_threads";
import * as ort from "onnxruntime-node";

/** @typedef {{ dtype: string, shape: readonly number[], data: any }} Message */

/** @type {Map<number, { session: ort.InferenceSession, hasRun: boolean }>} */
const sessions = new Map();

/**
 * Gives the CPU arena's free regions back after a session's first run. That run grows the arena step by step; a second
 * one would fit into those pieces badly and add a gigabyte at Stable Diffusion's size, where a fresh start does not.
 */
const FIRST_RUN = { extra: { memory: { enable_memory_arena_shrinkage: "cpu:0" } } };

/** @param {string} name */
function providerFile(name) {
  const root = dirname(createRequire(import.meta.url).resolve("onnxruntime-node/package.json"));
  const prefix = process.platform === "win32" ? "" : "lib";
  const ending = process.platform === "win32" ? ".dll" : ".so";
  const file = `${prefix}onnxruntime_providers_${name}${ending}`;
  return join(root, "bin", "napi-v6", process.platform, process.arch, file);
}

/** @type {Record<string, (request: any) => Promise<{ result?: unknown, transfer?: ArrayBuffer[] }>>} */
const handlers = {
  async create({ session, bytes, options }) {
    sessions.set(session, { session: await ort.InferenceSession.create(bytes, options), hasRun: false });
    return {};
  },
  async run({ session, feeds }) {
    /** @type {Record<string, ort.Tensor>} */
    const inputs = {};
    for (const [name, { dtype, shape, data }] of Object.entries(/** @type {Record<string, Message>} */ (feeds))) {
      inputs[name] = new ort.Tensor(/** @type {any} */ (dtype), data, shape);
    }
    const loaded = /** @type {{ session: ort.InferenceSession, hasRun: boolean }} */ (sessions.get(session));
    const outputs = await loaded.session.run(inputs, loaded.hasRun ? {} : FIRST_RUN);
    loaded.hasRun = true;
    /** @type {Record<string, Message>} */
    const result = {};
    /** @type {ArrayBuffer[]} */
    const transfer = [];
    for (const [name, output] of Object.entries(outputs)) {
      const data = /** @type {any} */ (output.data);
      result[name] = { dtype: output.type, shape: output.dims, data };
      if (!transfer.includes(data.buffer)) transfer.push(data.buffer);
    }
    return { result, transfer };
  },
  async release({ session }) {
    const loaded = sessions.get(session);
    sessions.delete(session);
    loaded?.session.endProfiling();
    await loaded?.session.release();
    return {};
  },
  async devices() {
    // What is not bundled may have been installed beside the library (CUDA's provider comes as a file of its own).
    const names = ort.listSupportedBackends().filter(({ name, bundled }) => bundled || existsSync(providerFile(name)));
    return { result: names.map(({ name }) => name) };
  },
};

parentPort?.on("message", async ({ id, kind, ...request }) => {
  try {
    const { result, transfer } = await /** @type {NonNullable<typeof handlers[string]>} */ (handlers[kind])(request);
    parentPort?.postMessage({ id, result }, transfer ?? []);
  } catch (error) {
    parentPort?.postMessage({ id, error: error instanceof Error ? error.message : String(error) });
  }
});
