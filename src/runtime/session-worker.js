// The worker thread that owns ONNX Runtime sessions in Node: `run` blocks the thread it is called on, and this one has
// nothing else to do. Plain JavaScript, so that it also runs unbuilt under the tests.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { parentPort } from "node:worker_threads";
import { nativeFolder, onnxRuntime as ort } from "./onnxruntime.js";

/** @typedef {import("onnxruntime-common").InferenceSession} InferenceSession */
/** @typedef {import("onnxruntime-common").Tensor} OrtTensor */

/** @typedef {{ dtype: string, shape: readonly number[], data: any }} Message */

/**
 * `state` are the bound inputs by name, `made` the bound outputs of the last run, `readers` sessions that copy a value of a
 * bound one's type into main memory, `copies` memory for inputs that come in shared memory.
 *
 * @typedef {{
 *   loaded: InferenceSession,
 *   ioBinding: { state: Record<string, string>, outputs: readonly string[] },
 *   state: Record<string, OrtTensor>,
 *   made: Record<string, OrtTensor>,
 *   readers: Map<string, InferenceSession>,
 *   copies: Map<string, any>,
 * }} Session
 */

/** @type {Map<number, Session>} */
const sessions = new Map();

/** @param {number} id */
function sessionOf(id) {
  const session = sessions.get(id);
  if (!session) throw new Error(`there is no session ${id}`);
  return session;
}

/** @param {Message} message */
const asTensor = ({ dtype, shape, data }) => new ort.Tensor(/** @type {any} */ (dtype), data, shape);

/**
 * An input as ONNX Runtime takes it, which has no access to shared memory: copied into memory that is kept for the next run.
 *
 * @param {Session} session
 * @param {string} name
 * @param {Message} message
 */
function inputOf({ copies }, name, message) {
  const { data } = message;
  if (!(data.buffer instanceof SharedArrayBuffer)) return asTensor(message);
  let copy = copies.get(name);
  if (copy?.length !== data.length) {
    copy = new data.constructor(data.length);
    copies.set(name, copy);
  }
  copy.set(data);
  return asTensor({ ...message, data: copy });
}

/**
 * Frees GPU memory now instead of when JavaScript's garbage is collected.
 *
 * @param {OrtTensor | undefined} tensor
 */
function discard(tensor) {
  if (tensor && tensor.location !== "cpu") tensor.dispose();
}

/**
 * A tensor's values. In Node, `getData` on a GPU tensor ends the process (onnxruntime-node 1.30): a model copies instead.
 *
 * @param {Session} session
 * @param {OrtTensor} tensor
 * @param {Uint8Array} model
 */
async function fetched(session, tensor, model) {
  if (tensor.location === "cpu") return tensor.data;
  const key = `${tensor.type}[${tensor.dims}]`;
  let reader = session.readers.get(key);
  if (!reader) {
    reader = await ort.InferenceSession.create(model, { executionProviders: ["webgpu"], logSeverityLevel: 3 });
    session.readers.set(key, reader);
  }
  return /** @type {OrtTensor} */ ((await reader.run({ x: tensor })).y).data;
}

/** @param {string} name */
function providerFile(name) {
  const prefix = process.platform === "win32" ? "" : "lib";
  const ending = process.platform === "win32" ? ".dll" : ".so";
  return join(nativeFolder, `${prefix}onnxruntime_providers_${name}${ending}`);
}

/** @type {Record<string, (request: any) => Promise<{ result?: unknown, transfer?: ArrayBuffer[] }>>} */
const handlers = {
  async create({ session, bytes, options, ioBinding = { state: {}, outputs: [] } }) {
    const loaded = await ort.InferenceSession.create(bytes, options);
    sessions.set(session, { loaded, ioBinding, state: {}, made: {}, readers: new Map(), copies: new Map() });
    return {};
  },
  async run({ session: id, feeds }) {
    const session = sessionOf(id);
    /** @type {Record<string, OrtTensor>} */
    const inputs = { ...session.state };
    for (const [name, message] of Object.entries(/** @type {Record<string, Message>} */ (feeds))) {
      inputs[name] = inputOf(session, name, message);
    }
    const outputs = await session.loaded.run(inputs);
    const stays = new Set([...Object.values(session.ioBinding.state), ...session.ioBinding.outputs]);
    /** @type {Record<string, Message>} */
    const result = {};
    /** @type {ArrayBuffer[]} */
    const transfer = [];
    for (const [name, output] of Object.entries(outputs)) {
      if (stays.has(name)) {
        discard(session.made[name]);
        session.made[name] = output;
        continue;
      }
      const data = /** @type {any} */ (output.data);
      result[name] = { dtype: output.type, shape: output.dims, data };
      if (!transfer.includes(data.buffer)) transfer.push(data.buffer);
    }
    return { result, transfer };
  },
  async write({ session: id, values }) {
    const { state } = sessionOf(id);
    for (const [name, message] of Object.entries(/** @type {Record<string, Message>} */ (values))) {
      discard(state[name]);
      const { data } = message;
      state[name] = asTensor({ ...message, data: data.buffer instanceof SharedArrayBuffer ? data.slice() : data });
    }
    return {};
  },
  async advance({ session: id }) {
    const { ioBinding, state, made } = sessionOf(id);
    for (const [input, output] of Object.entries(ioBinding.state)) {
      const next = made[output];
      if (!next) throw new Error(`no run has made "${output}" yet`);
      discard(state[input]);
      state[input] = next;
      delete made[output];
    }
    return {};
  },
  async read({ session: id, wanted, signal, message }) {
    let outcome = 1;
    try {
      const session = sessionOf(id);
      for (const { name, bytes, reader } of wanted) {
        const tensor = session.state[name] ?? session.made[name];
        if (!tensor) throw new Error(`"${name}" has no value yet`);
        const data = /** @type {any} */ (await fetched(session, tensor, reader));
        bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
      }
    } catch (error) {
      outcome = 2;
      const text = new TextEncoder().encode(error instanceof Error ? error.message : String(error));
      message.set(text.subarray(0, message.length - 1));
    }
    Atomics.store(signal, 0, outcome);
    Atomics.notify(signal, 0);
    return {};
  },
  async release({ session: id }) {
    const session = sessions.get(id);
    sessions.delete(id);
    if (!session) return {};
    for (const tensor of [...Object.values(session.state), ...Object.values(session.made)]) discard(tensor);
    for (const reader of session.readers.values()) await reader.release();
    session.loaded.endProfiling();
    await session.loaded.release();
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
