// A training step whose adapters, AdamW moments and average stay on the device: uploaded once, read back when asked for.

import type { AdapterState } from "../adapters/adapter-model.js";
import type { CompiledGraph, DeviceResident } from "../runtime/index.js";
import { flatValues, type Tensor, tensor } from "../tensor/tensor.js";
import type { ParameterAverage } from "./average.js";
import type { AdamW } from "./optimizers/adamw.js";
import { adamWCoefficients } from "./optimizers/device-adamw.js";
import type { Packing } from "./packing.js";
import { lossesOf } from "./step-graph.js";
import type { OptimizerStepOptions, StepOutcome } from "./trainable.js";

/** Steps of AdamW by the graph of `buildDeviceStep`; one at a time. */
export class DeviceStep {
  private holdsState = false;
  private queue: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly compiled: CompiledGraph,
    private readonly packing: Packing,
    private readonly trained: AdapterState,
    readonly optimizer: AdamW,
    readonly average?: ParameterAverage,
  ) {}

  /**
   * One step, which takes effect only where it is accepted.
   *
   * @param feeds - The batch.
   */
  run(feeds: Record<string, Tensor>, options: OptimizerStepOptions): Promise<StepOutcome> {
    return this.inTurn(async () => {
      const result = await this.compute(feeds, options);
      const outcome = {
        ...lossesOf(result, this.trained.adapter.lossNames),
        gradientNorm: (result.norm!.data as Float32Array)[0]!,
      };
      options.accept(outcome, () => this.lastGradients());
      await this.compiled.advance();
      this.optimizer.countStep();
      if (this.average) this.average.updates++;
      // Also where the state was read back while the device computed: the step made a newer one there.
      this.takeOver();
      return outcome;
    });
  }

  /** Losses, and the gradient of every parameter. Changes nothing. */
  gradients(feeds: Record<string, Tensor>) {
    return this.inTurn(async () => ({
      losses: lossesOf(await this.compute(feeds), this.trained.adapter.lossNames),
      gradients: this.lastGradients(),
    }));
  }

  /** Brings the state back and frees the graph. */
  release(): Promise<void> {
    return this.inTurn(async () => {
      this.fetch();
      await this.compiled.release();
    });
  }

  private async compute(
    feeds: Record<string, Tensor>,
    { learningRate, maxGradientNorm }: Omit<OptimizerStepOptions, "accept"> = {},
  ): Promise<Record<string, Tensor>> {
    if (!this.holdsState) await this.upload();
    const coefficients = adamWCoefficients(this.optimizer.coefficients({ learningRate }), maxGradientNorm);
    const decay = this.average && { averageDecay: tensor([this.average.nextDecay], []) };
    return this.compiled.run({ ...feeds, coefficients, ...decay });
  }

  private async upload(): Promise<void> {
    const { packing, trained, average } = this;
    trained.residence.syncToHost();
    const moments = this.moments();
    const values = {
      parameters: packing.pack(flatValues(trained.parameters)),
      first: packing.pack(new Map([...moments].map(([name, { first }]) => [name, first]))),
      second: packing.pack(new Map([...moments].map(([name, { second }]) => [name, second]))),
      ...(average && { average: packing.pack(flatValues(average.values)) }),
    };
    const written = this.compiled.write(values);
    // Before the wait, so that values changed here meanwhile are uploaded again.
    this.takeOver();
    await written;
  }

  private takeOver(): void {
    this.holdsState = true;
    for (const resident of this.residents()) resident.moveToDevice(this.fetch);
  }

  private residents(): DeviceResident[] {
    const { trained, optimizer, average } = this;
    return [trained.residence, optimizer.residence, ...(average ? [average.residence] : [])];
  }

  /** All comes back together: who reads one of them reads the others soon (a checkpoint), or rarely. */
  private readonly fetch = (): void => {
    if (!this.holdsState) return;
    this.holdsState = false;
    const { trained, average, packing } = this;
    const state = this.compiled.readSync(["parameters", "first", "second", ...(average ? ["average"] : [])]);
    const unpacked = (name: string) => packing.unpack(state[name]!.data as Float32Array);
    for (const [name, values] of unpacked("parameters")) trained.parameters.get(name)!.data.set(values);
    if (average) for (const [name, values] of unpacked("average")) average.values.get(name)!.data.set(values);
    const [first, second] = [unpacked("first"), unpacked("second")];
    for (const [name, moments] of this.moments()) {
      moments.first.set(first.get(name)!);
      moments.second.set(second.get(name)!);
    }
  };

  private moments() {
    return this.optimizer.moments(new Map([...this.trained.parameters].map(([name, { size }]) => [name, size])));
  }

  private lastGradients(): Map<string, Float32Array> {
    return this.packing.unpack(this.compiled.readSync(["gradient"]).gradient!.data as Float32Array);
  }

  private inTurn<T>(work: () => Promise<T>): Promise<T> {
    const next = this.queue.then(work);
    this.queue = next.catch(() => undefined);
    return next;
  }
}
