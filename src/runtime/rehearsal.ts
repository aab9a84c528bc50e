// Rehearses work: everything is built and lowered as it will be, but nothing is loaded or computed. What is told is how much
// memory the models that are loaded at the same time will hold. Node only.

import { AsyncLocalStorage } from "node:async_hooks";
import { ConfigError, RuntimeError } from "../errors.js";
import { modelMemory } from "../onnx/index.js";
import { BYTES_PER_ELEMENT, fromBytes, sizeOf, type Tensor } from "../tensor/tensor.js";
import {
  type Backend,
  type BackendSession,
  backend,
  type LoadableModel,
  type SessionSettings,
  substituteBackend,
  type TensorType,
} from "./backend.js";

/** Kernels take memory of their own from the arena, which no graph tells: up to an eighth was measured. */
const ARENA_FACTOR = 1.15;
/** The system maps some of what lies around a weight along. */
const WEIGHT_FACTOR = 1.03;
/** An embedded weight is held by the model's bytes, on their way into the worker thread, and by ONNX Runtime. */
const EMBEDDED_COPIES = 3;

/** The backend of one rehearsal. */
class Rehearsal implements Backend {
  readonly supportsIoBinding: boolean;
  readonly processors: number | undefined;
  peakBytes = 0;
  private readonly loaded = new Map<object, number>();

  constructor(private readonly real: Backend) {
    this.supportsIoBinding = real.supportsIoBinding ?? false;
    this.processors = real.processors;
  }

  devices() {
    return this.real.devices();
  }

  async create(model: LoadableModel, { device, ioBinding }: SessionSettings): Promise<BackendSession> {
    if (device !== "cpu") {
      throw new ConfigError(
        `memory limit: what a model takes is known on the CPU only; the device is "${device}". Leave the limit out there.`,
      );
    }
    const { arenaBytes, weightBytes, embeddedBytes } = modelMemory(model.bytes);
    const session = {};
    this.loaded.set(session, ARENA_FACTOR * arenaBytes + WEIGHT_FACTOR * weightBytes + EMBEDDED_COPIES * embeddedBytes);
    const sum = [...this.loaded.values()].reduce((total, bytes) => total + bytes, 0);
    this.peakBytes = Math.max(this.peakBytes, sum);
    const bound = new Set(ioBinding ? [...Object.values(ioBinding.state), ...ioBinding.outputs] : []);
    const results = [...model.outputs].filter(([name]) => !bound.has(name));
    const run = async () => {
      if (rehearsals.getStore() !== this) {
        throw new RuntimeError("runtime: this graph was built for a rehearsal; release it before it is used.");
      }
      return Object.fromEntries(results.map(([name, type]) => [name, blank(type)]));
    };
    return {
      run,
      bound: {
        write: async () => undefined,
        advance: async () => undefined,
        readSync: (names) =>
          Object.fromEntries(names.map((name) => [name, blank((model.inputs.get(name) ?? model.outputs.get(name))!)])),
      },
      release: async () => {
        this.loaded.delete(session);
      },
    };
  }
}

const rehearsals = new AsyncLocalStorage<Rehearsal>();
substituteBackend(() => rehearsals.getStore());

/** Zeros of a type. */
const blank = ({ dtype, shape }: TensorType): Tensor =>
  fromBytes(dtype, shape, new Uint8Array(sizeOf(shape) * BYTES_PER_ELEMENT[dtype]));

/**
 * The most bytes that the models of some work will hold at the same time on the CPU.
 *
 * What is compiled meanwhile must be released before the work ends: it cannot compute.
 *
 * @param work - Is done as it is, on zeros in place of every result.
 * @throws {ConfigError} If the work runs on another device.
 */
export async function rehearsedBytes(work: () => Promise<unknown>): Promise<number> {
  const rehearsal = new Rehearsal(backend());
  await rehearsals.run(rehearsal, work);
  return rehearsal.peakBytes;
}
