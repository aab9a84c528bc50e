// Compiles a Graph into a runnable function on a device.

import { RuntimeError, ShapeError } from "../errors.js";
import { type Graph, sameShape } from "../graph/index.js";
import { inHalfPrecision, lower, type OnnxModel } from "../onnx/index.js";
import type { Tensor } from "../tensor/tensor.js";
import {
  type BackendSession,
  type BoundValues,
  backend,
  type IoBinding,
  type LoadableModel,
  type SessionSettings,
  type TensorType,
} from "./backend.js";
import { type Device, type DeviceOption, resolveDevice, targetOf } from "./device.js";

/** What a graph computes in; inputs and results are float32. */
export type Precision = "float32" | "float16";

/** Options of {@link compile}. */
export interface CompileOptions {
  /** Defaults to `cpu` (in the browser: `wasm`). */
  device?: DeviceOption;
  threads?: number;
  profilePrefix?: string;
  /** `float16`: products and what lies between them compute in half precision, the rest in float32. Default `float32`. */
  precision?: Precision;
  /**
   * Inputs and outputs that stay on the device between runs.
   *
   * Only where {@link supportsIoBinding}.
   */
  ioBinding?: IoBinding;
}

/** The options that every compiled graph of a model shares. */
export type RuntimeOptions = Pick<CompileOptions, "device" | "threads">;

/** A graph loaded into ONNX Runtime. */
export class CompiledGraph {
  private released = false;
  private readonly running = new Set<Promise<unknown>>();

  constructor(
    readonly inputs: ReadonlyMap<string, TensorType>,
    private readonly session: BackendSession,
    readonly device: Device,
    private readonly ioBinding: IoBinding = { state: {}, outputs: [] },
  ) {}

  /**
   * Runs once.
   *
   * @param feeds - One tensor per graph input that is not bound, of its exact dtype and shape. Taken as they are now; those in
   *   shared memory as they are until the run is over.
   * @returns One tensor per graph output that is not bound.
   * @throws {ShapeError} If an input is missing, unknown, or of another dtype or shape.
   */
  async run(feeds: Record<string, Tensor>): Promise<Record<string, Tensor>> {
    this.check("run", feeds, (name) => !(name in this.ioBinding.state));
    const run = this.session.run(feeds);
    this.running.add(run);
    return run.finally(() => this.running.delete(run));
  }

  /**
   * Copies the bound inputs to the device, all of them.
   *
   * @throws {ShapeError} As {@link run}.
   */
  async write(values: Record<string, Tensor>): Promise<void> {
    this.check("write", values, (name) => name in this.ioBinding.state);
    await this.access("write").write(values);
  }

  /** Replaces every bound input by the output of the last run that belongs to it. */
  async advance(): Promise<void> {
    await this.access("advance").advance();
  }

  /**
   * Copies bound inputs as they are, and bound outputs as the last run made them, to the host.
   *
   * Blocks the thread until they are here, so that code which cannot wait sees current values.
   */
  readSync(names: readonly string[]): Record<string, Tensor> {
    return this.access("readSync").readSync(names);
  }

  private check(where: string, feeds: Record<string, Tensor>, takes: (name: string) => boolean): void {
    this.requireLoaded(where);
    checkFeeds(where, feeds, new Map([...this.inputs].filter(([name]) => takes(name))));
  }

  private access(where: string): BoundValues {
    this.requireLoaded(where);
    if (!this.session.bound) throw new RuntimeError(`${where}: this graph was compiled without an I/O binding.`);
    return this.session.bound;
  }

  private requireLoaded(where: string): void {
    if (this.released) throw new RuntimeError(`${where}: this compiled graph was released.`);
  }

  /** The same as {@link release}. */
  dispose(): Promise<void> {
    return this.release();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release();
  }

  /** Frees the session, once the runs under way are over. Running afterwards throws. */
  async release(): Promise<void> {
    if (this.released) return;
    this.released = true;
    await Promise.allSettled(this.running);
    await this.session.release();
  }
}

/** Whether compiled graphs can keep values on their device between runs here. */
export const supportsIoBinding = (): boolean => backend().supportsIoBinding ?? false;

/**
 * Lowers a graph for a device and loads it.
 *
 * @throws {ConfigError} If the device is not available.
 * @throws {RuntimeError} If ONNX Runtime refuses the model.
 */
export async function compile(graph: Graph, options: CompileOptions = {}): Promise<CompiledGraph> {
  const device = await deviceOf(options);
  const { threads, profilePrefix, ioBinding } = options;
  return load(lowered(graph, device, options), { device, threads, profilePrefix, ioBinding });
}

/** A graph as the device gets it. */
export function lowered(
  graph: Graph,
  device: Device,
  { precision = "float32" }: Pick<CompileOptions, "precision">,
): OnnxModel {
  if (precision === "float32") return lower(graph, targetOf(device));
  const model = lower(graph, "portable");
  return { ...model, bytes: inHalfPrecision(model.bytes) };
}

/** The same to load, without the graph: a value holds its whole graph. */
export function withoutGraph({ bytes, weightsFolder, inputs, outputs }: OnnxModel): LoadableModel {
  return { bytes, weightsFolder, inputs: typesOf(inputs), outputs: typesOf(outputs) };
}

const typesOf = (values: ReadonlyMap<string, TensorType>): ReadonlyMap<string, TensorType> =>
  new Map([...values].map(([name, { dtype, shape }]) => [name, { dtype, shape }]));

/** Loads a lowered graph. */
export async function load(model: LoadableModel, settings: SessionSettings): Promise<CompiledGraph> {
  const session = await backend().create(model, settings);
  return new CompiledGraph(typesOf(model.inputs), session, settings.device, settings.ioBinding);
}

/**
 * The device that these options lead to.
 *
 * @throws {ConfigError} If it is not available.
 */
export async function deviceOf(options: RuntimeOptions): Promise<Device> {
  const devices = await backend().devices();
  const fallback: Device = devices.includes("cpu") ? "cpu" : "wasm";
  return resolveDevice(options.device ?? fallback, devices);
}

/** @throws {ShapeError} Unless there is one feed of the right type per input, and no other. */
export function checkFeeds(
  where: string,
  feeds: Record<string, Tensor>,
  inputs: ReadonlyMap<string, TensorType>,
): void {
  for (const [name, type] of inputs) {
    const fed = feeds[name];
    if (!fed) throw new ShapeError(`${where}: input "${name}" is missing; expected ${described(type)}.`);
    if (fed.dtype !== type.dtype || !sameShape(fed.shape, type.shape)) {
      throw new ShapeError(`${where}: input "${name}" must be ${described(type)}; got ${described(fed)}.`);
    }
  }
  for (const name of Object.keys(feeds)) {
    if (!inputs.has(name)) {
      throw new ShapeError(`${where}: unknown input "${name}"; inputs are ${[...inputs.keys()].join(", ")}.`);
    }
  }
}

const described = ({ dtype, shape }: TensorType): string => `${dtype}[${shape.join(",")}]`;
