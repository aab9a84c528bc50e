// One training in a tab: the steps of the library on rows in memory, with metrics, pictures and the adapter as files.

import { AdapterModel, FeRAConfig, FeRAModel } from "../../../../src/adapters/index.js";
import { createObjective } from "../../../../src/diffusion/index.js";
import { Generator } from "../../../../src/tensor/random.js";
import { ParameterAverage } from "../../../../src/training/average.js";
import { DiffusionBatches } from "../../../../src/training/diffusion-batches.js";
import { gatesAlong } from "../../../../src/training/gates-along.js";
import { learningRateSchedule, stepsOf } from "../../../../src/training/learning-rate.js";
import { OptimizerStep } from "../../../../src/training/optimizer-step.js";
import { createOptimizer, FINE_TUNING_RATES } from "../../../../src/training/optimizers/index.js";
import { toAdapterConfig } from "../../../../src/training/options/adapter-options.js";
import { noisingOptionsOf, objectiveOptionsOf } from "../../../../src/training/options/objective-options.js";
import { rateFactors } from "../../../../src/training/parameter-groups.js";
import type { MetricsLine } from "../../../../src/training/report/metrics-file.js";
import { SavedModel } from "../../../../src/training/saved-model.js";
import { loadModel } from "./place.js";
import type { TabValues } from "./tab-options.js";
import { encodeRows, type findImages } from "./training-data.js";

/** Times that a router's gates are told. */
const GATES_TOLD = 20;

/** What follows a training, and rules it. */
export interface TrainingWatch {
  /** Its answer is awaited: it returns when the training may go on, and throws where it shall not. */
  onActivity(text: string): Promise<void>;
  /** After every step; awaited, too. @returns False where the training is to end. */
  onStep(line: MetricsLine): Promise<boolean>;
}

/** A training that is ready for its first step. */
export interface PreparedTraining {
  readonly pipeline: Awaited<ReturnType<typeof loadModel>>;
  /** As it would be saved now. */
  readonly saved: SavedModel;
  /** Trains until all steps are done, or `onStep` says that it ends. */
  run(): Promise<void>;
  release(): Promise<void>;
}

/**
 * Loads the model, encodes the data and compiles the step.
 *
 * @throws {Error} Whose message names what is wrong.
 */
export async function prepareTraining(
  values: TabValues,
  data: Awaited<ReturnType<typeof findImages>>,
  watch: TrainingWatch,
): Promise<PreparedTraining> {
  await watch.onActivity("loading the model");
  const pipeline = await loadModel(values.device);
  await watch.onActivity("encoding captions");
  const { flip, resolution, batchSize, steps, ema } = values;
  let told = Promise.resolve();
  const rows = await encodeRows(pipeline, data, { flip, resolution }, (what, done, of) => {
    told = watch.onActivity(`encoding ${what} ${done} of ${of}`);
  });
  await told;
  await watch.onActivity("compiling the step");
  const objective = createObjective(pipeline.schedulerConfig, objectiveOptionsOf(values));
  const config = toAdapterConfig(values);
  const model =
    config instanceof FeRAConfig
      ? new FeRAModel(pipeline.unet, config, { seed: values.seed })
      : await AdapterModel.create(pipeline.unet, config, { seed: values.seed });
  const learningRate = values.learningRate ?? FINE_TUNING_RATES[values.optimizer];
  const optimizer = createOptimizer(values.optimizer, { lr: learningRate, weightDecay: values.weightDecay });
  const average = ema === 0 ? undefined : new ParameterAverage(model.parameters, ema, { warmup: values.emaWarmup });
  const rateOf = rateFactors(model.parameters.keys(), { ...values, textFactor: 1 });
  const drawing = { batchSize, captionDropout: values.captionDropout, objective, ...noisingOptionsOf(values) };
  const trainable = await model.compileTrainStep({
    ...{ batchSize, optimizer, average, rateOf, objective },
    ...rows.latentSize(0),
    tokens: pipeline.tokenizer.maxLength,
    gradientCheckpointing: values.gradientCheckpointing,
  });
  const delivered = average ?? (optimizer.deliversAverage ? deliveredBy(model, optimizer) : undefined);
  const saved = new SavedModel(model, delivered);
  const batches = new DiffusionBatches(rows, {
    ...drawing,
    variation: { flip },
    generator: new Generator(values.seed),
  });
  const optimizerStep = new OptimizerStep({
    ...{ trainable, optimizer, rateOf },
    ...(average && { average }),
    ...(values.maxGradientNorm > 0 && { maxGradientNorm: values.maxGradientNorm }),
  });
  const rateAt = learningRateSchedule({
    ...{ name: values.schedule, restarts: values.restarts, power: values.power, totalSteps: steps },
    learningRate: optimizer.lr,
    warmupSteps: stepsOf("warmup", values.warmup, steps),
    ...(values.decaySteps !== undefined && { decaySteps: stepsOf("decaySteps", values.decaySteps, steps) }),
  });
  const gatesEvery = Math.ceil(steps / GATES_TOLD);

  async function run(): Promise<void> {
    let seconds = 0;
    for (let step = 1; step <= steps; step++) {
      const startedAt = performance.now();
      const drawn = [];
      for (let i = 0; i < values.gradientAccumulation; i++) drawn.push(await batches.next());
      const rate = rateAt(step - 1);
      const outcome = await optimizerStep.run(drawn, {
        learningRate: rate,
        name: `step ${step}`,
        advice: () => "Lower the learning rate, or look at the images of this batch.",
      });
      // Only what training takes: pictures and pauses between the steps are no part of its speed.
      seconds += (performance.now() - startedAt) / 1000;
      const { losses, gradientNorm, sampleLosses } = outcome;
      const tellsGates =
        (step % gatesEvery === 0 || step === steps) && config instanceof FeRAConfig && config.numExperts > 1;
      const line = {
        ...{ step, steps, ...losses, learningRate: rate, gradientNorm, seconds, stepsPerSecond: step / seconds },
        ...(sampleLosses && { timesteps: sampleLosses.timesteps, sampleLosses: sampleLosses.losses }),
        ...(tellsGates && { gates: await gatesAlong(saved.current() as FeRAModel, rows, objective) }),
      };
      const goesOn = await watch.onStep(line as unknown as MetricsLine);
      if (!goesOn) return;
    }
  }

  async function release(): Promise<void> {
    await trainable.release();
    await saved.release();
    await pipeline.release();
  }

  return { pipeline, saved, run, release };
}

function deliveredBy(model: AdapterModel, optimizer: ReturnType<typeof createOptimizer>) {
  return {
    get values() {
      return optimizer.delivered(model.parameters);
    },
  };
}
