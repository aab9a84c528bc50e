// Data parallelism on the CPU: copies of one training graph run at the same time, each on its part of the batch and with its
// part of the processors. A small model's operators are too short to be divided among threads.
//
// What is exact: the same inputs give the same bits on the same device with the same number of copies, which follows from
// the batch size and the number of threads. With another number of copies the mean over the batch is summed in another order,
// and losses and gradients differ by float32 rounding; so do they between devices. Threads within one copy divide rows and
// columns of products among themselves, not sums: one and two of them gave the same bits.

import { RuntimeError } from "../errors.js";
import { Graph } from "../graph/index.js";
import { concatRows } from "../tensor/rows.js";
import { compileKernel, onceCompiled, quads } from "../tensor/simd-kernel.js";
import { Tensor } from "../tensor/tensor.js";
import { backend } from "./backend.js";
import {
  type CompiledGraph,
  type CompileOptions,
  checkFeeds,
  deviceOf,
  load,
  lowered,
  withoutGraph,
} from "./compile.js";

/** Options of {@link compileDataParallel}. */
export interface DataParallelOptions extends Omit<CompileOptions, "ioBinding"> {
  batchSize: number;
  /** Of the model, which every copy holds and reads again. */
  parameterBytes: number;
  /** Outputs that have a row per sample. */
  perSample?: readonly string[];
  /** Whether the results of parts, averaged, are those of the whole batch; true by default. */
  isDivisible?: boolean;
}

/**
 * Beyond this, one graph reads its parameters once for all samples, and memory counts: at Stable Diffusion 1.5's size two
 * copies would save a twentieth of the time and take a third more memory.
 */
const LARGEST_PARAMETER_BYTES = 256e6;

/** What each further thread costs: two were 1.74 times as fast as one at the embedded model's size. */
const WAITING = 0.15;

/** Copies of one graph. With a single copy it is that graph. */
export class DataParallelGraph {
  private loaded: Promise<readonly CompiledGraph[]> | undefined;
  private isReleased = false;

  /**
   * @param parts - Into how many equal parts a batch is divided.
   * @param load - Loads a copy for each part.
   */
  constructor(
    readonly parts: number,
    private readonly batchSize: number,
    private readonly load: () => Promise<readonly CompiledGraph[]>,
    private readonly perSample: readonly string[] = [],
  ) {}

  /**
   * Runs all copies.
   *
   * @param batch - Inputs whose first axis is the batch.
   * @param shared - Inputs that every copy takes whole.
   * @returns The mean of each output, all float32, over the copies: an output must be a mean over samples, or the gradient of
   *   one. Of those that have a row per sample, all rows.
   * @throws {ShapeError} If an input is missing, unknown, or of another dtype or shape.
   */
  async run(batch: Record<string, Tensor>, shared: Record<string, Tensor>): Promise<Record<string, Tensor>> {
    const { parts } = this;
    const copies = await this.copies();
    if (parts === 1) return copies[0]!.run({ ...batch, ...shared });
    this.check(copies[0]!, batch, shared);
    const divided = Object.entries(batch).map(([name, value]) => [name, divide(value, parts)] as const);
    const results = await Promise.all(
      copies.map((copy, part) => {
        const feeds = Object.fromEntries(divided.map(([name, pieces]) => [name, pieces[part]!]));
        return copy.run({ ...feeds, ...shared });
      }),
    );
    const [first, ...others] = results as [Record<string, Tensor>, ...Record<string, Tensor>[]];
    for (const [name, value] of Object.entries(first)) {
      const rest = others.map((other) => other[name]!);
      if (this.perSample.includes(name)) first[name] = concatRows([value, ...rest]);
      else
        average(
          value.data as Float32Array,
          rest.map(({ data }) => data as Float32Array),
        );
    }
    return first;
  }

  /**
   * Frees what the copies hold of memory, once their runs are over; what was lowered stays, so that the next run begins with
   * loading alone.
   */
  async unload(): Promise<void> {
    const { loaded } = this;
    this.loaded = undefined;
    for (const copy of (await loaded) ?? []) await copy.release();
  }

  /** Loads the copies, unless they are. @throws {RuntimeError} If ONNX Runtime refuses the model. */
  async copies(): Promise<readonly CompiledGraph[]> {
    if (this.isReleased) throw new RuntimeError("run: this compiled graph was released.");
    if (!this.loaded) {
      const loaded = this.load();
      this.loaded = loaded;
      loaded.catch(() => {
        if (this.loaded === loaded) this.loaded = undefined;
      });
    }
    return this.loaded;
  }

  private check(copy: CompiledGraph, batch: Record<string, Tensor>, shared: Record<string, Tensor>): void {
    const inputs = new Map(
      [...copy.inputs].map(([name, { dtype, shape }]) => {
        const whole = name in shared ? shape : [this.batchSize, ...shape.slice(1)];
        return [name, { dtype, shape: whole }];
      }),
    );
    checkFeeds("run", { ...batch, ...shared }, inputs);
  }

  /** Frees all copies. Running afterwards throws. */
  async release(): Promise<void> {
    this.isReleased = true;
    await this.unload();
  }
}

/**
 * Compiles a training graph, in several copies where that is faster.
 *
 * @param build - Adds the graph of a batch of that size.
 */
export async function compileDataParallel(
  build: (graph: Graph, batchSize: number) => void,
  options: DataParallelOptions,
): Promise<DataParallelGraph> {
  const { batchSize, parameterBytes, profilePrefix, perSample, isDivisible = true } = options;
  const device = await deviceOf(options);
  const processors = device === "cpu" ? (backend().processors ?? 1) : 1;
  const threads = Math.min(options.threads ?? processors, processors);
  const parts = isDivisible && parameterBytes <= LARGEST_PARAMETER_BYTES ? partsOf(batchSize, threads) : 1;
  const graph = new Graph();
  build(graph, batchSize / parts);
  const model = withoutGraph(lowered(graph, device, options));
  const share = parts === 1 ? options.threads : Math.floor(threads / parts);
  const copy = (worker: number) => {
    const trace = profilePrefix !== undefined && parts > 1 ? `${profilePrefix}-${worker}` : profilePrefix;
    return load(model, { device, worker, threads: share, profilePrefix: trace });
  };
  const copies = () => Promise.all(Array.from({ length: parts }, (_, worker) => copy(worker)));
  const compiled = new DataParallelGraph(parts, batchSize, copies, perSample);
  await compiled.copies();
  return compiled;
}

/** The divisor of the batch size that leaves the threads the least idle. */
export function partsOf(batchSize: number, threads: number): number {
  let best = { parts: 1, speed: 0 };
  for (let parts = 1; parts <= Math.min(batchSize, threads); parts++) {
    const speed = parts * speedOf(Math.floor(threads / parts));
    if (batchSize % parts === 0 && speed >= best.speed) best = { parts, speed };
  }
  return best.parts;
}

/** How much faster threads compute the operators of a small model together than one does alone. */
const speedOf = (threads: number): number => threads / (1 + WAITING * (threads - 1));

/** Equal parts along the first axis, as views. */
function divide({ data, shape, dtype }: Tensor, parts: number): Tensor[] {
  const partShape = [shape[0]! / parts, ...shape.slice(1)];
  const size = data.length / parts;
  return Array.from(
    { length: parts },
    (_, part) =>
      new Tensor(dtype as "float32", partShape, data.subarray(part * size, (part + 1) * size) as Float32Array),
  );
}

/** first ← the mean of all, element by element; one pass for each of the others, the last of which divides. */
function average(first: Float32Array, others: readonly Float32Array[]): void {
  others.forEach((other, i) => {
    const factor = i === others.length - 1 ? 1 / (1 + others.length) : 1;
    addScaled(first, other, factor);
  });
}

/** sum ← (sum + other) · factor. The same bits with SIMD and without where the factor is a power of 2. */
function addScaled(sum: Float32Array, other: Float32Array, factor: number): void {
  const kernel = addScaledKernel();
  if (kernel && sum.length >= LEAST_FOR_KERNEL) {
    kernel({ sum, other }, { factor });
    return;
  }
  for (let i = 0; i < sum.length; i++) sum[i] = (sum[i]! + other[i]!) * factor;
}

/** Elements below which a kernel's copies take longer than the sum. */
const LEAST_FOR_KERNEL = 256;

const addScaledKernel = onceCompiled(() =>
  compileKernel(["sum", "other"], ["factor"], ({ load, scalar, store }) => {
    store("sum", quads.mul(quads.add(load("sum"), load("other")), scalar("factor")));
  }),
);
