// Compiles a Graph into a runnable function on a device.

import { RuntimeError, ShapeError } from "../errors.js";
import { type Graph, lower, type OnnxModel, sameShape } from "../graph/index.js";
import type { Tensor } from "../tensor/tensor.js";
import { type BackendSession, backend } from "./backend.js";
import { type Device, type DeviceOption, resolveDevice, targetOf } from "./device.js";

/** Options of {@link compile}. */
export interface CompileOptions {
  /** Defaults to `cpu` (in the browser: `wasm`). */
  device?: DeviceOption;
  threads?: number;
  profilePrefix?: string;
}

/** The options that every compiled graph of a model shares. */
export type RuntimeOptions = Pick<CompileOptions, "device" | "threads">;

/** A graph loaded into ONNX Runtime. */
export class CompiledGraph {
  private released = false;

  constructor(
    private readonly model: Pick<OnnxModel, "inputs" | "outputs">,
    private readonly session: BackendSession,
    readonly device: Device,
  ) {}

  /**
   * Runs once.
   *
   * @param feeds - One tensor per graph input, of its exact dtype and shape.
   * @returns One tensor per graph output.
   * @throws {ShapeError} If an input is missing, unknown, or of another dtype or shape.
   */
  async run(feeds: Record<string, Tensor>): Promise<Record<string, Tensor>> {
    if (this.released) throw new RuntimeError("run: this compiled graph was released.");
    for (const [name, value] of this.model.inputs) {
      const fed = feeds[name];
      if (!fed) throw new ShapeError(`run: input "${name}" is missing; expected ${value}.`);
      if (fed.dtype !== value.dtype || !sameShape(fed.shape, value.shape)) {
        throw new ShapeError(`run: input "${name}" must be ${value}; got ${fed.dtype}[${fed.shape.join(",")}].`);
      }
    }
    for (const name of Object.keys(feeds)) {
      if (!this.model.inputs.has(name)) {
        throw new ShapeError(`run: unknown input "${name}"; inputs are ${[...this.model.inputs.keys()].join(", ")}.`);
      }
    }
    return this.session.run(feeds);
  }

  /** Frees the session. Running afterwards throws. */
  async release(): Promise<void> {
    if (this.released) return;
    this.released = true;
    await this.session.release();
  }
}

/**
 * Lowers a graph for a device and loads it.
 *
 * @throws {ConfigError} If the device is not available.
 * @throws {RuntimeError} If ONNX Runtime refuses the model.
 */
export async function compile(graph: Graph, options: CompileOptions = {}): Promise<CompiledGraph> {
  const platform = backend();
  const devices = await platform.devices();
  const fallback: Device = devices.includes("cpu") ? "cpu" : "wasm";
  const device = resolveDevice(options.device ?? fallback, devices);
  const model = lower(graph, targetOf(device));
  const session = await platform.create(model, {
    device,
    threads: options.threads,
    profilePrefix: options.profilePrefix,
  });
  return new CompiledGraph({ inputs: model.inputs, outputs: model.outputs }, session, device);
}
