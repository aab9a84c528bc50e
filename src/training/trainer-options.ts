// What a trainer is told, and what it gives.

import type { RankGroup } from "../distributed/index.js";
import type { Tensor } from "../tensor/tensor.js";
import type { ParameterAverage } from "./average.js";
import type { BestStep } from "./checkpoint-policy.js";
import type { DiffusionBatches } from "./diffusion-batches.js";
import type { Engine } from "./engine.js";
import type { LearningRateScheduleName, LearningRateShape } from "./learning-rate.js";
import type { Optimizer } from "./optimizers/optimizer.js";
import type { StepMeasures, StepReport } from "./report/step-report.js";
import type { Trainable } from "./trainable.js";

/** What happens where a loss or gradient is not finite. */
export const NON_FINITE_ACTIONS = ["stop", "rollback"] as const;

/** Settings of a `Trainer`. */
export interface TrainerOptions {
  trainable: Trainable;
  batches: DiffusionBatches;
  optimizer: Optimizer;
  /** Optimizer steps in all, those of a resumed run included. */
  steps: number;
  /** Folder for `metrics.jsonl` and `checkpoints/`. */
  output: string;
  schedule?: LearningRateScheduleName;
  /** Restarts or power of the schedule. */
  scheduleShape?: Omit<LearningRateShape, "name">;
  warmupSteps?: number;
  /** Steps at the end over which the learning rate falls; by default all after the warm-up. */
  decaySteps?: number;
  /** A factor on the learning rate by the parameter's name; the same function as the trainable's, where that steps itself. */
  rateOf?: (name: string) => number;
  /** Whether a parameter stays as it is in the step after `step` steps. Such steps are done in main memory. */
  isFrozen?: (name: string, step: number) => boolean;
  /** Batches whose gradients are averaged into one step. */
  gradientAccumulation?: number;
  /** Largest L2 norm of all gradients together; 0 for no clipping. */
  maxGradientNorm?: number;
  /** An average of the parameters, which is then the result. */
  average?: ParameterAverage;
  /** Steps between checkpoints; 0 for one at the end only. */
  checkpointEvery?: number;
  /** How many of the newest checkpoints are kept; 0 for all. Default 2. The best by validation loss is kept, too. */
  keepCheckpoints?: number;
  /**
   * Where a loss or gradient is not finite: `stop` with an error; or `rollback` to the newest checkpoint, go on without the
   * batches of that step, and say so, `MAX_ROLLBACKS` times at most. Default `stop`.
   */
  onNonFinite?: (typeof NON_FINITE_ACTIONS)[number];
  /** An image's name by its row in the data, for messages. */
  nameOf?: (row: number) => string;
  /** Says what must agree for a resumed run to be the same run: seed, data, configuration. */
  fingerprint?: string;
  /** What computes; kept in checkpoints, so that a resumed run can say what it cannot promise. */
  engine?: Engine;
  /** Told what is good to know, such as that a damaged checkpoint was passed over; a warning of the process by default. */
  onMessage?: (message: string) => void;
  /** Measures something after a step, and before the first (step 0), for its line of the metrics; undefined where nothing is due. */
  measure?: (step: number) => Promise<StepMeasures | undefined>;
  /** Called after every step, before it is logged. */
  onStep?: (report: StepReport, measures: StepMeasures) => void | Promise<void>;
  /** Called before the step behind a checkpoint is done, or done again. */
  onRestore?: (step: number) => void | Promise<void>;
  /** Called around the writing of a checkpoint. */
  onCheckpoint?: (event: "writing" | "written") => void;
  /** Ends the run after the current step, with a checkpoint. */
  signal?: AbortSignal;
  /**
   * The processes that train together, where there are several: each computes the part of every batch that its `batches`
   * give (`BatchOptions.part`), and all do the same steps. Rank 0 alone measures, tells and writes.
   */
  ranks?: RankGroup | undefined;
}

/** How a run ended. */
export interface TrainingResult {
  step: number;
  /** False where the signal ended it early. */
  finished: boolean;
  checkpoint: string;
  /** The averaged parameters, what the optimizer delivers without an average, or the parameters themselves. */
  parameters: ReadonlyMap<string, Tensor<"float32">>;
  /** The step with the lowest validation loss, where one was measured; its checkpoint is kept. */
  best?: BestStep;
}
