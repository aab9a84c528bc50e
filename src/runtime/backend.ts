// What a platform must provide to run ONNX models, and the registry through which an entry point provides it.

import { RuntimeError } from "../errors.js";
import type { OnnxModel } from "../graph/index.js";
import type { Tensor } from "../tensor/tensor.js";
import type { Device } from "./device.js";

/** Settings of one session. */
export interface SessionSettings {
  device: Device;
  /** Threads inside one operator; the platform's choice when absent. */
  threads?: number;
  /** Writes a trace of every kernel to files that begin so (Node only). */
  profilePrefix?: string;
}

/** A loaded model. */
export interface BackendSession {
  run(feeds: Record<string, Tensor>): Promise<Record<string, Tensor>>;
  /** Frees the model. Returns the profile's path where one was written. */
  release(): Promise<void>;
}

/** A platform's way to load models. */
export interface Backend {
  /** Devices that can be asked for, the fastest first. */
  devices(): Promise<readonly Device[]>;
  create(model: OnnxModel, settings: SessionSettings): Promise<BackendSession>;
}

let current: Backend | undefined;

/** Called once by the platform's entry point. */
export function registerBackend(backend: Backend): void {
  current = backend;
}

/** The registered backend. */
export function backend(): Backend {
  if (!current)
    throw new RuntimeError('runtime: no backend is registered. Import from "fera", not from a file inside it.');
  return current;
}
