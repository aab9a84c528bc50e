// The Node backend: onnxruntime-node in worker threads.

import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { RuntimeError } from "../errors.js";
import { Graph } from "../graph/index.js";
import { lower } from "../onnx/index.js";
import { BYTES_PER_ELEMENT, type DType, fromBytes, sizeOf, Tensor, type TensorData } from "../tensor/tensor.js";
import {
  type Backend,
  type BackendSession,
  type IoBinding,
  type LoadableModel,
  registerBackend,
  type SessionSettings,
  type TensorType,
} from "./backend.js";
import type { Device } from "./device.js";

interface Reply {
  id: number;
  result?: unknown;
  error?: string;
}

/**
 * In the order of `auto`: CUDA where its files are installed, else the CPU. The others are asked for by name: WebGPU is
 * listed on machines without a GPU too, and neither it nor CoreML nor DirectML has been measured faster yet.
 */
const PREFERENCE: readonly Device[] = ["cuda", "cpu", "webgpu", "coreml", "dml"];

/** Longest wait for a bound value: far above any step, so that a worker that died is not waited for forever. */
const READ_LIMIT_MS = 600_000;
const MESSAGE_BYTES = 4096;
/**
 * ONNX Runtime searches the process's command line with a regular expression, which takes about 300 bytes of stack per
 * character: a worker's usual 4 MB end a process with 14,000 characters of arguments without a word.
 */
const STACK_MB = 64;

class NodeBackend implements Backend {
  readonly supportsIoBinding = true;
  readonly processors = availableParallelism();
  private readonly workers: SessionWorker[] = [];
  private nextSession = 0;

  async devices(): Promise<readonly Device[]> {
    const bundled = (await this.worker(0).ask("devices", {})) as string[];
    return PREFERENCE.filter((device) => device === "cpu" || bundled.includes(device));
  }

  async create(model: LoadableModel, settings: SessionSettings): Promise<BackendSession> {
    const session = this.nextSession++;
    const { ioBinding } = settings;
    const worker = this.worker(settings.worker ?? 0);
    const options = sessionOptions(model, settings);
    await worker.ask("create", { session, bytes: model.bytes, options, ioBinding });
    return {
      run: async (feeds) => {
        const { messages, buffers } = copied(feeds);
        const outputs = (await worker.ask("run", { session, feeds: messages }, buffers)) as Record<string, Message>;
        const result: Record<string, Tensor> = {};
        for (const [name, { dtype, shape, data }] of Object.entries(outputs))
          result[name] = new Tensor(dtype, shape, data);
        return result;
      },
      bound: ioBinding && {
        write: async (values) => {
          const { messages, buffers } = copied(values);
          await worker.ask("write", { session, values: messages }, buffers);
        },
        advance: async () => {
          await worker.ask("advance", { session });
        },
        readSync: (names) => worker.readSync(session, boundValues(model, ioBinding, names)),
      },
      release: async () => {
        await worker.ask("release", { session });
      },
    };
  }

  private worker(index: number): SessionWorker {
    this.workers[index] ??= new SessionWorker();
    return this.workers[index];
  }
}

/** A worker thread and what was asked of it; started when it is needed, and again if it has died. */
class SessionWorker {
  private worker: Worker | undefined;
  private readonly pending = new Map<number, { resolve: (result: unknown) => void; reject: (error: Error) => void }>();
  private nextId = 0;

  /** The worker fills shared memory and wakes this thread, which therefore needs no event loop. */
  readSync(session: number, values: ReadonlyMap<string, TensorType>): Record<string, Tensor> {
    const signal = new Int32Array(new SharedArrayBuffer(4));
    const message = new Uint8Array(new SharedArrayBuffer(MESSAGE_BYTES));
    const wanted = [...values].map(([name, value]) => {
      const bytes = new Uint8Array(new SharedArrayBuffer(sizeOf(value.shape) * BYTES_PER_ELEMENT[value.dtype]));
      return { name, bytes, reader: copyingModel(value) };
    });
    this.start().postMessage({ kind: "read", session, wanted, signal, message });
    if (Atomics.wait(signal, 0, 0, READ_LIMIT_MS) === "timed-out") {
      throw new RuntimeError(`runtime: the worker gave no answer within ${READ_LIMIT_MS / 1000} s.`);
    }
    if (signal[0] !== 1) {
      const text = new TextDecoder().decode(message.slice());
      throw new RuntimeError(`ONNX Runtime: ${text.slice(0, text.indexOf("\0"))}`);
    }
    const result: Record<string, Tensor> = {};
    for (const { name, bytes } of wanted) {
      const { dtype, shape } = values.get(name)!;
      result[name] = fromBytes(dtype, shape, bytes.slice());
    }
    return result;
  }

  /** @param buffers - Those within the request that the worker gets instead of copies. */
  ask(kind: string, request: object, buffers: readonly ArrayBuffer[] = []): Promise<unknown> {
    const worker = this.start();
    const id = this.nextId++;
    // A process may end while the idle worker waits, but not while it works.
    worker.ref();
    return new Promise((resolve, reject) => {
      this.pending.set(id, { resolve, reject });
      worker.postMessage({ id, kind, ...request }, buffers);
    });
  }

  private start(): Worker {
    if (this.worker) return this.worker;
    const worker = new Worker(new URL("./session-worker.js", import.meta.url), {
      execArgv: workerFlags(),
      resourceLimits: { stackSizeMb: STACK_MB },
    });
    worker.on("message", ({ id, result, error }: Reply) => {
      const waiting = this.pending.get(id);
      this.pending.delete(id);
      if (this.pending.size === 0) worker.unref();
      if (error === undefined) waiting?.resolve(result);
      else waiting?.reject(new RuntimeError(`ONNX Runtime: ${error}`));
    });
    worker.on("error", (cause) => this.abandon(new RuntimeError(`runtime worker failed: ${cause.message}`, { cause })));
    worker.on("exit", () => this.abandon(new RuntimeError("runtime worker ended unexpectedly.")));
    worker.unref();
    this.worker = worker;
    return worker;
  }

  private abandon(error: RuntimeError): void {
    this.worker = undefined;
    for (const { reject } of this.pending.values()) reject(error);
    this.pending.clear();
  }
}

interface Message {
  dtype: DType;
  shape: readonly number[];
  data: TensorData;
}

const isShared = ({ buffer }: TensorData): boolean => buffer instanceof SharedArrayBuffer;

/** Copies that the worker may have, and shared memory as it is, which the worker copies: a message that is cloned takes four times as long, and a view's whole buffer along. */
function copied(tensors: Record<string, Tensor>): { messages: Record<string, Message>; buffers: ArrayBuffer[] } {
  const entries = Object.entries(tensors).map(([name, { dtype, shape, data }]): [string, Message] => [
    name,
    { dtype, shape, data: isShared(data) ? data : data.slice() },
  ]);
  return {
    messages: Object.fromEntries(entries),
    buffers: entries.filter(([, { data }]) => !isShared(data)).map(([, { data }]) => data.buffer as ArrayBuffer),
  };
}

function boundValues(model: LoadableModel, ioBinding: IoBinding, names: readonly string[]): Map<string, TensorType> {
  return new Map(
    names.map((name) => {
      if (name in ioBinding.state) return [name, model.inputs.get(name)!];
      if (ioBinding.outputs.includes(name)) return [name, model.outputs.get(name)!];
      throw new RuntimeError(`runtime: the session's I/O binding has no value "${name}".`);
    }),
  );
}

/** A model that copies its input `x` to `y`. */
function copyingModel({ dtype, shape }: TensorType): Uint8Array {
  const graph = new Graph();
  graph.output("y", graph.input("x", dtype, shape));
  return lower(graph, "portable").bytes;
}

/**
 * ONNX Runtime's own optimizer stays off (fusions are ours; it triples memory and takes long), memory patterns double
 * memory on the second run, and prepacking copies every weight.
 */
function sessionOptions(model: LoadableModel, { device, threads, profilePrefix, ioBinding }: SessionSettings): object {
  const session: Record<string, string> = { disable_prepacking: "1" };
  if (model.weightsFolder !== undefined) session.model_external_initializers_file_folder_path = model.weightsFolder;
  // The other providers of ONNX Runtime's Node binding hand every output over in main memory.
  const stays = ioBinding && device === "webgpu" ? [...Object.values(ioBinding.state), ...ioBinding.outputs] : [];
  return {
    executionProviders: [device],
    graphOptimizationLevel: "disabled",
    enableMemPattern: false,
    executionMode: "sequential",
    interOpNumThreads: 1,
    intraOpNumThreads: threads ?? availableParallelism(),
    logSeverityLevel: 3,
    extra: { session },
    ...(stays.length === 0
      ? {}
      : { preferredOutputLocation: Object.fromEntries(stays.map((name) => [name, "gpu-buffer"])) }),
    ...(profilePrefix === undefined ? {} : { enableProfiling: true, profileFilePrefix: profilePrefix }),
  };
}

/** The program's own flags, such as `--import`, less those about a program that is given as text: workers refuse them. */
function workerFlags(): string[] {
  const ofText = process.execArgv.findIndex((flag) => /^(?:-e|--eval|-p|--print|-pe)$/.test(flag));
  const flags = ofText === -1 ? process.execArgv : process.execArgv.slice(0, ofText);
  return flags.filter((flag) => !flag.startsWith("--input-type"));
}

registerBackend(new NodeBackend());
