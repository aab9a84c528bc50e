// The browser backend: onnxruntime-web on WebAssembly or WebGPU. One run at a time: a WebGPU session hangs on two.

import * as ort from "onnxruntime-web/webgpu";
import { RuntimeError } from "../errors.js";
import { Tensor, type TensorData } from "../tensor/tensor.js";
import {
  type Backend,
  type BackendSession,
  type LoadableModel,
  registerBackend,
  type SessionSettings,
} from "./backend.js";
import type { Device } from "./device.js";

/** Where ONNX Runtime finds its own files, and how many threads it may use. */
export interface WebRuntimeOptions {
  /** URLs of `ort-wasm-simd-threaded.asyncify.wasm` and `.mjs` of the onnxruntime-web package. */
  files?: { wasm: string; mjs: string };
  /** More than one needs a page that is cross-origin isolated (COOP and COEP headers). Default: ONNX Runtime's choice. */
  threads?: number;
}

/** Sets up ONNX Runtime; to be called before the first computation. */
export function configureWebRuntime({ files, threads }: WebRuntimeOptions): void {
  if (files) ort.env.wasm.wasmPaths = { wasm: files.wasm, mjs: files.mjs };
  if (threads !== undefined) ort.env.wasm.numThreads = threads;
}

class WebBackend implements Backend {
  private queue: Promise<unknown> = Promise.resolve();

  async devices(): Promise<readonly Device[]> {
    const gpu = (globalThis.navigator as { gpu?: { requestAdapter(): Promise<unknown> } } | undefined)?.gpu;
    const adapter = await gpu?.requestAdapter().catch(() => null);
    return adapter ? ["webgpu", "wasm"] : ["wasm"];
  }

  async create(model: LoadableModel, settings: SessionSettings): Promise<BackendSession> {
    if (model.weightsFolder !== undefined) {
      throw new RuntimeError("runtime: weights in files cannot be used in place in a browser; load them into memory.");
    }
    if (settings.ioBinding) {
      // A page reads GPU buffers asynchronously only.
      throw new RuntimeError("runtime: sessions in a browser have no I/O binding.");
    }
    const session = await this.inTurn(() =>
      ort.InferenceSession.create(model.bytes, {
        executionProviders: [settings.device],
        graphOptimizationLevel: "disabled",
        enableMemPattern: false,
      }),
    );
    return {
      run: (feeds) =>
        this.inTurn(async () => {
          const inputs = Object.fromEntries(
            Object.entries(feeds).map(([name, { dtype, data, shape }]) => [
              name,
              new ort.Tensor(dtype, data as never, shape),
            ]),
          );
          const outputs = await session.run(inputs);
          const result: Record<string, Tensor> = {};
          for (const [name, { type, dims, data }] of Object.entries(outputs)) {
            result[name] = new Tensor(type as Tensor["dtype"], dims, data as TensorData);
          }
          return result;
        }),
      release: () => this.inTurn(() => session.release()),
    };
  }

  private inTurn<T>(work: () => Promise<T>): Promise<T> {
    const next = this.queue.then(work).catch((cause: unknown) => {
      throw new RuntimeError(`ONNX Runtime: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    });
    this.queue = next.catch(() => undefined);
    return next;
  }
}

registerBackend(new WebBackend());
