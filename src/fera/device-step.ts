// A training step whose adapters and AdamW moments stay on the device: uploaded once, read back when asked for.

import { TrainingError } from "../errors.js";
import type { CompiledGraph } from "../runtime/index.js";
import { allFinite, type Tensor } from "../tensor/tensor.js";
import { adamWCoefficients } from "../training/device-adamw.js";
import type { AdamW } from "../training/optimizers.js";
import type { Packing } from "../training/packing.js";
import type { TrainedAdapter } from "./train-step.js";

/** Steps of AdamW by the graph of `buildDeviceStep`; one at a time. */
export class DeviceStep {
  private holdsState = false;
  private queue: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly compiled: CompiledGraph,
    private readonly packing: Packing,
    private readonly adapter: TrainedAdapter,
    private readonly optimizer: AdamW,
  ) {}

  /**
   * One step, which takes effect only where all is finite.
   *
   * @param feeds - The batch.
   * @param accept - Throws where the outputs are not to be accepted.
   * @param maxNorm - Largest norm of all gradients together.
   * @returns The outputs that are not kept: losses and `norm`.
   * @throws {TrainingError} If the gradient is not finite.
   */
  run(
    feeds: Record<string, Tensor>,
    accept: (result: Record<string, Tensor>) => void,
    maxNorm?: number,
  ): Promise<Record<string, Tensor>> {
    return this.inTurn(async () => {
      const result = await this.compute(feeds, maxNorm);
      accept(result);
      const norm = (result.norm!.data as Float32Array)[0]!;
      if (!Number.isFinite(norm)) {
        requireFiniteGradients(this.lastGradients());
        throw new TrainingError(`run: the norm of all gradients is ${norm}.`);
      }
      await this.compiled.advance();
      this.optimizer.countStep();
      // Also where the state was read back while the device computed: the step made a newer one there.
      this.takeOver();
      return result;
    });
  }

  /** The outputs, and the gradient of every parameter. Changes nothing. */
  gradients(feeds: Record<string, Tensor>) {
    return this.inTurn(async () => ({ result: await this.compute(feeds), gradients: this.lastGradients() }));
  }

  /** Brings the state back and frees the graph. */
  release(): Promise<void> {
    return this.inTurn(async () => {
      this.bringBack();
      await this.compiled.release();
    });
  }

  private async compute(feeds: Record<string, Tensor>, maxNorm?: number): Promise<Record<string, Tensor>> {
    if (!this.holdsState) await this.upload();
    return this.compiled.run({ ...feeds, coefficients: adamWCoefficients(this.optimizer.coefficients(), maxNorm) });
  }

  private async upload(): Promise<void> {
    const { packing, adapter } = this;
    adapter.loan.recall();
    const moments = this.moments();
    const values = {
      parameters: packing.pack(this.parameters()),
      first: packing.pack(new Map([...moments].map(([name, { first }]) => [name, first]))),
      second: packing.pack(new Map([...moments].map(([name, { second }]) => [name, second]))),
    };
    const written = this.compiled.write(values);
    // Before the wait, so that values changed here meanwhile are uploaded again.
    this.takeOver();
    await written;
  }

  private takeOver(): void {
    this.holdsState = true;
    this.adapter.loan.lend(this.bringBack);
    this.optimizer.loan.lend(this.bringBack);
  }

  /** Parameters and moments come back together: who reads one reads the other soon (a checkpoint), or rarely. */
  private readonly bringBack = (): void => {
    if (!this.holdsState) return;
    this.holdsState = false;
    const state = this.compiled.readNow(["parameters", "first", "second"]);
    const unpacked = (name: string) => this.packing.unpack(state[name]!.data as Float32Array);
    for (const [name, values] of unpacked("parameters")) this.adapter.parameters.get(name)!.data.set(values);
    const [first, second] = [unpacked("first"), unpacked("second")];
    for (const [name, moments] of this.moments()) {
      moments.first.set(first.get(name)!);
      moments.second.set(second.get(name)!);
    }
  };

  private parameters(): Map<string, Float32Array> {
    return new Map([...this.adapter.parameters].map(([name, { data }]) => [name, data]));
  }

  private moments() {
    return this.optimizer.moments(new Map([...this.adapter.parameters].map(([name, { size }]) => [name, size])));
  }

  private lastGradients(): Map<string, Float32Array> {
    return this.packing.unpack(this.compiled.readNow(["gradient"]).gradient!.data as Float32Array);
  }

  private inTurn<T>(work: () => Promise<T>): Promise<T> {
    const next = this.queue.then(work);
    this.queue = next.catch(() => undefined);
    return next;
  }
}

/** @throws {TrainingError} Naming the first gradient that is not finite. */
export function requireFiniteGradients(gradients: ReadonlyMap<string, Float32Array>): void {
  for (const [name, gradient] of gradients) {
    if (!allFinite(gradient)) throw new TrainingError(`run: the gradient of "${name}" is not finite.`);
  }
}
