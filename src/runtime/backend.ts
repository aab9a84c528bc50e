// What a platform must provide to run ONNX models, and the registry through which an entry point provides it.

import { RuntimeError } from "../errors.js";
import type { OnnxModel } from "../onnx/index.js";
import type { DType, Tensor } from "../tensor/tensor.js";
import type { Device } from "./device.js";

/** What an input must be, or an output is. */
export interface TensorType {
  dtype: DType;
  shape: readonly number[];
}

/** As much of a lowered graph as loading takes; its inputs and outputs may be types alone. */
export type LoadableModel = Pick<OnnxModel, "bytes" | "weightsFolder"> & {
  readonly [side in "inputs" | "outputs"]: ReadonlyMap<string, TensorType>;
};

/** Settings of one session. */
export interface SessionSettings {
  device: Device;
  /** Threads inside one operator; the platform's choice when absent. */
  threads?: number;
  /** Which worker runs it: sessions of different workers run at the same time, those of one worker in turn. Default 0. */
  worker?: number;
  /** Writes a trace of every kernel to files that begin so (Node only). */
  profilePrefix?: string;
  /** What stays on the device between runs; only where the backend `supportsIoBinding`. */
  ioBinding?: IoBinding;
}

/** Inputs and outputs that are bound to memory of the device: they stay there between runs and are not copied to the host. */
export interface IoBinding {
  /** Inputs that runs are not fed, each with the output that can replace it. */
  state: Readonly<Record<string, string>>;
  /** Further outputs that runs do not return. */
  outputs: readonly string[];
}

/** A loaded model. */
export interface BackendSession {
  /** Takes and gives what is not bound. */
  run(feeds: Record<string, Tensor>): Promise<Record<string, Tensor>>;
  /** Of a session with an I/O binding. */
  bound?: BoundValues;
  /** Frees the model. Returns the profile's path where one was written. */
  release(): Promise<void>;
}

/** Access to what a session's I/O binding holds on the device. */
export interface BoundValues {
  /** Copies values of the bound inputs to the device. */
  write(values: Record<string, Tensor>): Promise<void>;
  /** Replaces every bound input by its output of the last run. */
  advance(): Promise<void>;
  /** Copies bound inputs, and bound outputs as the last run made them, to the host. Blocks until they are there. */
  readSync(names: readonly string[]): Record<string, Tensor>;
}

/** A platform's way to load models. */
export interface Backend {
  /** Devices that can be asked for, the fastest first. */
  devices(): Promise<readonly Device[]>;
  /** Whether sessions can keep values on the device between runs, and be read without giving up the thread. */
  readonly supportsIoBinding?: boolean;
  /** How many processors the CPU's sessions have between them; absent where they always run in turn. */
  readonly processors?: number;
  create(model: LoadableModel, settings: SessionSettings): Promise<BackendSession>;
}

let current: Backend | undefined;

/** Called once by the platform's entry point. */
export function registerBackend(backend: Backend): void {
  current = backend;
}

/** What may take the backend's place for a while; see rehearsal.ts. */
let inItsPlace: () => Backend | undefined = () => undefined;

/** Lets another backend take the registered one's place wherever `choose` gives one. */
export function substituteBackend(choose: () => Backend | undefined): void {
  inItsPlace = choose;
}

/** The registered backend, or what has taken its place. */
export function backend(): Backend {
  const other = inItsPlace();
  if (other) return other;
  if (!current)
    throw new RuntimeError('runtime: no backend is registered. Import from "fera", not from a file inside it.');
  return current;
}
