// The Node backend: onnxruntime-node in one worker thread shared by all sessions.

import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { RuntimeError } from "../errors.js";
import type { OnnxModel } from "../graph/index.js";
import { type DType, Tensor, type TensorData } from "../tensor/tensor.js";
import { type Backend, type BackendSession, registerBackend, type SessionSettings } from "./backend.js";
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

class NodeBackend implements Backend {
  private worker: Worker | undefined;
  private readonly pending = new Map<number, { resolve: (result: unknown) => void; reject: (error: Error) => void }>();
  private nextId = 0;
  private nextSession = 0;

  async devices(): Promise<readonly Device[]> {
    const bundled = (await this.ask("devices", {})) as string[];
    return PREFERENCE.filter((device) => device === "cpu" || bundled.includes(device));
  }

  async create(model: OnnxModel, settings: SessionSettings): Promise<BackendSession> {
    const session = this.nextSession++;
    await this.ask("create", { session, bytes: model.bytes, options: sessionOptions(model, settings) });
    return {
      run: async (feeds) => {
        const messages: Record<string, { dtype: DType; shape: readonly number[]; data: TensorData }> = {};
        for (const [name, { dtype, shape, data }] of Object.entries(feeds)) messages[name] = { dtype, shape, data };
        const outputs = (await this.ask("run", { session, feeds: messages })) as typeof messages;
        const result: Record<string, Tensor> = {};
        for (const [name, { dtype, shape, data }] of Object.entries(outputs))
          result[name] = new Tensor(dtype, shape, data);
        return result;
      },
      release: async () => {
        await this.ask("release", { session });
      },
    };
  }

  private ask(kind: string, request: object): Promise<unknown> {
    const worker = this.start();
    const id = this.nextId++;
    // A process may end while the idle worker waits, but not while it works.
    worker.ref();
    return new Promise((resolve, reject) => {
      this.pending.set(id, { resolve, reject });
      worker.postMessage({ id, kind, ...request });
    });
  }

  private start(): Worker {
    if (this.worker) return this.worker;
    const worker = new Worker(new URL("./session-worker.js", import.meta.url));
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

/**
 * ONNX Runtime's own optimizer stays off (fusions are ours; it triples memory and takes long), memory patterns double
 * memory on the second run, and prepacking copies every weight.
 */
function sessionOptions(model: OnnxModel, { device, threads, profilePrefix }: SessionSettings): object {
  const session: Record<string, string> = { disable_prepacking: "1" };
  if (model.weightsFolder !== undefined) session.model_external_initializers_file_folder_path = model.weightsFolder;
  return {
    executionProviders: [device],
    graphOptimizationLevel: "disabled",
    enableMemPattern: false,
    executionMode: "sequential",
    interOpNumThreads: 1,
    intraOpNumThreads: threads ?? availableParallelism(),
    logSeverityLevel: 3,
    extra: { session },
    ...(profilePrefix === undefined ? {} : { enableProfiling: true, profileFilePrefix: profilePrefix }),
  };
}

registerBackend(new NodeBackend());
