// A training step whose adapters, optimizer state and average stay on the device: uploaded once, read back when asked for.

import type { AdapterState, StepAdapter } from "../adapters/adapter.js";
import type { LossesAndGradients, StepLossScale, TrainStepInputs } from "../adapters/train-step-options.js";
import type { CompiledGraph, DeviceResident } from "../runtime/index.js";
import { flatValues, type Tensor } from "../tensor/tensor.js";
import type { ParameterAverage } from "./average.js";
import type { ElementwiseOptimizer } from "./optimizers/elementwise-optimizer.js";
import { fedMaxNorm } from "./optimizers/gradient-clipping.js";
import type { StepFeeds } from "./step-feeds.js";
import {
  AVERAGE,
  type DeviceStepGraph,
  lossesOf,
  PARAMETERS,
  type StepScalars,
  sampleLossesOf,
  stateInput,
} from "./step-graph.js";
import type { DeviceStepOptions, DeviceSteps, StepOutcome } from "./trainable.js";

/** Steps of an optimizer by the graph of `buildDeviceStep`; one at a time. */
export class DeviceStep implements DeviceSteps<TrainStepInputs> {
  private holdsState = false;
  private queue: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly compiled: CompiledGraph,
    private readonly graph: Pick<DeviceStepGraph, "packing" | "scalars" | "lossNames">,
    private readonly trained: AdapterState<StepAdapter>,
    private readonly feeds: StepFeeds,
    readonly optimizer: ElementwiseOptimizer,
    readonly average?: ParameterAverage,
    readonly rateOf?: (name: string) => number,
    private readonly lossScale?: StepLossScale,
  ) {}

  /** One step, which takes effect only where it is accepted. */
  async step(batch: TrainStepInputs, options: DeviceStepOptions): Promise<StepOutcome> {
    const feeds = this.feeds.training(batch);
    return this.inTurn(async () => {
      const result = await this.runScaled(feeds, options);
      const losses = lossesOf(result, this.graph.lossNames);
      const gradientNorm = (result.norm!.data as Float32Array)[0]!;
      const outcome = { losses, gradientNorm, ...sampleLossesOf(result, batch) };
      options.accept(outcome, () => this.lastGradients());
      await this.compiled.advance();
      this.optimizer.countStep(options);
      if (this.average) this.average.updates++;
      // Also where the state was read back while the device computed: the step made a newer one there.
      this.takeOver();
      return outcome;
    });
  }

  /** Losses, and the gradient of every parameter. Changes nothing. */
  async compute(batch: TrainStepInputs): Promise<LossesAndGradients> {
    const feeds = this.feeds.training(batch);
    return this.inTurn(async () => {
      const result = await this.runScaled(feeds);
      const losses = lossesOf(result, this.graph.lossNames);
      return { losses, gradients: this.lastGradients(), ...sampleLossesOf(result, batch) };
    });
  }

  /** Brings the state back and frees the graph. */
  release(): Promise<void> {
    return this.inTurn(async () => {
      this.fetch();
      await this.compiled.release();
    });
  }

  /** Again with a smaller factor on the loss where gradients overflowed: nothing has changed until `advance`. */
  private async runScaled(
    feeds: Record<string, Tensor>,
    options?: Omit<DeviceStepOptions, "accept">,
  ): Promise<Record<string, Tensor>> {
    for (;;) {
      const result = await this.runGraph(feeds, options);
      if (!this.lossScale || !Number.isFinite(lossesOf(result, this.graph.lossNames).loss)) return result;
      if (Number.isFinite((result.norm!.data as Float32Array)[0]!) || !this.lossScale.backOff()) return result;
    }
  }

  private async runGraph(
    feeds: Record<string, Tensor>,
    { learningRate, maxGradientNorm }: Omit<DeviceStepOptions, "accept"> = {},
  ): Promise<Record<string, Tensor>> {
    if (!this.holdsState) await this.upload();
    const own: StepScalars = {
      maxGradientNorm: fedMaxNorm(maxGradientNorm),
      averageDecay: this.average?.nextDecay ?? 0,
      lossScale: this.lossScale?.value ?? 1,
    };
    const scalars = this.graph.scalars.pack({ ...this.optimizer.coefficients({ learningRate }), ...own });
    return this.compiled.run({ ...feeds, scalars });
  }

  private async upload(): Promise<void> {
    const { packing } = this.graph;
    const packed = [...this.hostState()].map(([input, values]) => [input, packing.pack(values)] as const);
    const written = this.compiled.write(Object.fromEntries(packed));
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
    const state = this.hostState();
    const current = this.compiled.readSync([...state.keys()]);
    for (const [input, values] of state) {
      const unpacked = this.graph.packing.unpack(current[input]!.data as Float32Array);
      for (const [name, value] of values) value.set(unpacked.get(name)!);
    }
  };

  /** All that stays on the device, as it lies in main memory: by graph input, then by parameter. */
  private hostState(): Map<string, ReadonlyMap<string, Float32Array>> {
    const { trained, average, optimizer } = this;
    trained.residence.syncToHost();
    const state = new Map<string, ReadonlyMap<string, Float32Array>>([[PARAMETERS, flatValues(trained.parameters)]]);
    const slots = optimizer.stateOf(trained.parameters);
    for (const slot of optimizer.slotNames) {
      state.set(stateInput(slot), new Map([...slots].map(([name, values]) => [name, values[slot]! as Float32Array])));
    }
    if (average) state.set(AVERAGE, flatValues(average.values));
    return state;
  }

  private lastGradients(): Map<string, Float32Array> {
    return this.graph.packing.unpack(this.compiled.readSync(["gradient"]).gradient!.data as Float32Array);
  }

  private inTurn<T>(work: () => Promise<T>): Promise<T> {
    const next = this.queue.then(work);
    this.queue = next.catch(() => undefined);
    return next;
  }
}
