// One step of an optimizer: gradients, their norm and clipping, the refusal of what is not finite, the update of parameters
// and average. The only place that does so: in main memory, or by a trainable whose state stays on a device.

import type { StepAverage, StepOptimizer, TrainStepInputs } from "../adapters/train-step-options.js";
import { allFinite, flatValues } from "../tensor/tensor.js";
import { ParameterAverage } from "./average.js";
import { NonFiniteError } from "./non-finite.js";
import { clippingFactor, gradientNorm } from "./optimizers/gradient-clipping.js";
import { Optimizer, scale } from "./optimizers/optimizer.js";
import type { DiffusionBatch, Losses, LossesAndGradients, SampleLosses, StepOutcome, Trainable } from "./trainable.js";

/** What a step works with. */
export interface OptimizerStepParts<Batch extends TrainStepInputs = DiffusionBatch> {
  trainable: Trainable<Batch>;
  optimizer: StepOptimizer;
  /** Of the trainable's parameters. */
  average?: StepAverage;
  /** Largest L2 norm of all gradients together, above 0; not clipped by default. */
  maxGradientNorm?: number;
  /** A factor on the learning rate by parameter; a gradient whose factor is 0 counts in nothing. Default 1. */
  rateOf?: (name: string) => number;
  /** Joins what this process has computed with what others have of the same step, in place. */
  combine?: (own: LossesAndGradients) => Promise<LossesAndGradients>;
}

/** Settings of one step. */
export interface OptimizerStepOptions {
  /** The optimizer's own by default. */
  learningRate?: number;
  /** The step's name, for messages. */
  name: string;
  /** What of the parameters stays as it is in this step: its gradients count in nothing. Nothing by default. */
  isFrozen?: ((name: string) => boolean) | undefined;
  /** What to do where a loss or gradient is not finite, for messages. */
  advice: () => string;
}

/** Steps of an optimizer over the parameters of a trainable. */
export class OptimizerStep<Batch extends TrainStepInputs = DiffusionBatch> {
  constructor(private readonly parts: OptimizerStepParts<Batch>) {}

  /**
   * One step, and one update of the average.
   *
   * Where the trainable keeps the state of this optimizer and of this average on a device, and the step takes one batch,
   * it is done there.
   *
   * @param batches - The step follows the mean of their gradients; one at least.
   * @returns Mean losses, and the norm of the mean gradient before clipping.
   * @throws {NonFiniteError} If a loss or a gradient is not finite: names it; nothing is changed then.
   */
  async run(batches: readonly Batch[], options: OptimizerStepOptions): Promise<StepOutcome> {
    const { trainable, optimizer, average, maxGradientNorm, rateOf, combine } = this.parts;
    const { learningRate, isFrozen } = options;
    const { deviceSteps } = trainable;
    if (
      !combine &&
      batches.length === 1 &&
      !isFrozen &&
      deviceSteps?.optimizer === optimizer &&
      deviceSteps.average === average &&
      deviceSteps.rateOf === rateOf
    ) {
      const accept = (outcome: StepOutcome, gradients: Gradients) => requireFinite(outcome, gradients, options);
      const outcome = await deviceSteps.step(batches[0]!, { learningRate, maxGradientNorm, accept });
      trainable.lossScale?.succeeded();
      return outcome;
    }
    const own = await meanOver(trainable, batches);
    const isLeftOut = (name: string) => rateOf?.(name) === 0 || isFrozen?.(name);
    for (const name of [...own.gradients.keys()]) if (isLeftOut(name)) own.gradients.delete(name);
    const { losses, gradients, sampleLosses } = combine ? await combine(own) : own;
    const norm = gradientNorm(gradients);
    const outcome = { losses, gradientNorm: norm, ...(sampleLosses && { sampleLosses }) };
    requireFinite(outcome, () => gradients, options);
    const { parameters } = trainable;
    const shapes = new Map([...parameters].map(([name, { shape }]) => [name, shape]));
    const settings = { learningRate, rateOf, shapes };
    const gradientScale = maxGradientNorm === undefined ? 1 : clippingFactor(norm, maxGradientNorm);
    if (optimizer instanceof Optimizer && (average === undefined || average instanceof ParameterAverage)) {
      const along = average && { decay: average.nextDecay, values: flatValues(average.values) };
      optimizer.step(flatValues(parameters), gradients, { ...settings, gradientScale, average: along });
      if (average) average.updates++;
    } else {
      for (const gradient of gradients.values()) if (gradientScale !== 1) scale(gradient, gradientScale);
      optimizer.step(flatValues(parameters), gradients, settings);
      average?.update();
    }
    trainable.lossScale?.succeeded();
    return outcome;
  }
}

type Gradients = () => ReadonlyMap<string, Float32Array>;

/** Mean losses and gradients over batches, and all samples' losses. */
async function meanOver<Batch extends TrainStepInputs>(
  trainable: Trainable<Batch>,
  batches: readonly Batch[],
): Promise<LossesAndGradients> {
  const first = await trainable.compute(batches[0]!);
  if (batches.length === 1) return first;
  const sums: Record<string, number> = { ...first.losses };
  const samples = [first.sampleLosses];
  for (const batch of batches.slice(1)) {
    const next = await trainable.compute(batch);
    samples.push(next.sampleLosses);
    for (const [name, value] of Object.entries(next.losses)) sums[name] = sums[name]! + value;
    for (const [name, gradient] of first.gradients) {
      const more = next.gradients.get(name)!;
      for (let i = 0; i < gradient.length; i++) gradient[i] = gradient[i]! + more[i]!;
    }
  }
  for (const gradient of first.gradients.values()) {
    for (let i = 0; i < gradient.length; i++) gradient[i] = gradient[i]! / batches.length;
  }
  const means = Object.entries(sums).map(([name, sum]) => [name, sum / batches.length] as const);
  const sampleLosses = joined(samples);
  return {
    losses: Object.fromEntries(means) as unknown as Losses,
    gradients: first.gradients,
    ...(sampleLosses && { sampleLosses }),
  };
}

/** One after the other, where all are there. */
function joined(parts: readonly (SampleLosses | undefined)[]): SampleLosses | undefined {
  const known = parts.filter((part) => part !== undefined);
  if (known.length < parts.length) return undefined;
  return { timesteps: known.flatMap(({ timesteps }) => timesteps), losses: known.flatMap(({ losses }) => losses) };
}

/** @throws {NonFiniteError} With all loss terms, or the first gradient that is not finite. */
function requireFinite(
  { losses: { loss, ...terms }, gradientNorm }: StepOutcome,
  gradients: Gradients,
  { name, advice }: OptimizerStepOptions,
): void {
  const entries = Object.entries(terms);
  if (![loss, ...entries.map(([, value]) => value)].every(Number.isFinite)) {
    const listed = entries.map(([term, value]) => `${term} ${value}`).join(", ");
    throw new NonFiniteError(`${name}: the loss is ${loss} (${listed}). ${advice()}`);
  }
  if (Number.isFinite(gradientNorm)) return;
  const bad = [...gradients()].find(([, gradient]) => !allFinite(gradient))?.[0];
  // Finite gradients can have a norm that leaves the float32 range of a device.
  const what =
    bad === undefined ? `the norm of all gradients is ${gradientNorm}` : `the gradient of "${bad}" is not finite`;
  throw new NonFiniteError(`${name}: ${what}. ${advice()}`);
}
