// Compiles a Graph into a runnable function on a device.

import { RuntimeError, ShapeError } from "../errors.js";
import { type Graph, lower, sameShape } from "../graph/index.js";
import type { DType, Tensor } from "../tensor/tensor.js";
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

/** What an input must be. */
interface TensorType {
  dtype: DType;
  shape: readonly number[];
}

/** A graph loaded into ONNX Runtime. */
export class CompiledGraph {
  private released = false;

  constructor(
    private readonly inputs: ReadonlyMap<string, TensorType>,
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
    for (const [name, type] of this.inputs) {
      const fed = feeds[name];
      if (!fed) throw new ShapeError(`run: input "${name}" is missing; expected ${described(type)}.`);
      if (fed.dtype !== type.dtype || !sameShape(fed.shape, type.shape)) {
        throw new ShapeError(`run: input "${name}" must be ${described(type)}; got ${described(fed)}.`);
      }
    }
    for (const name of Object.keys(feeds)) {
      if (!this.inputs.has(name)) {
        throw new ShapeError(`run: unknown input "${name}"; inputs are ${[...this.inputs.keys()].join(", ")}.`);
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
  // Types only: a value holds its whole graph.
  const inputs = new Map([...model.inputs].map(([name, { dtype, shape }]) => [name, { dtype, shape }]));
  return new CompiledGraph(inputs, session, device);
}

const described = ({ dtype, shape }: TensorType): string => `${dtype}[${shape.join(",")}]`;
