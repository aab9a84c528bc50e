// The training loop: batches in, optimizer steps, metrics and checkpoints out. Node only, for its files.

import { join } from "node:path";
import type { RankGroup } from "../distributed/index.js";
import { ConfigError, TrainingError } from "../errors.js";
import { describeSystemError, isFailedWrite } from "../storage/file-access.js";
import { type DType, Tensor } from "../tensor/tensor.js";
import type { ParameterAverage } from "./average.js";
import {
  type Checkpoint,
  checkpointPath,
  latestCheckpoint,
  prepareOutputFolder,
  restoreInto,
  setAside,
} from "./checkpoint.js";
import { type BestStep, CheckpointPolicy } from "./checkpoint-policy.js";
import type { DiffusionBatches } from "./diffusion-batches.js";
import { currentEngine, type Engine, engineChange } from "./engine.js";
import { refuseOtherFingerprint } from "./fingerprint.js";
import { type LearningRateScheduleName, type LearningRateShape, learningRateSchedule } from "./learning-rate.js";
import { clearLeftOvers } from "./left-overs.js";
import { LossScale } from "./loss-scale.js";
import { describeStepInputs, NonFiniteError } from "./non-finite.js";
import { OptimizerStep } from "./optimizer-step.js";
import type { Optimizer } from "./optimizers/optimizer.js";
import { newestCheckpointOf, requireSameOnAll } from "./rank-checkpoints.js";
import { RankMean } from "./rank-mean.js";
import { MetricsFile } from "./report/metrics-file.js";
import type { StepMeasures, StepReport } from "./report/step-report.js";
import type { DiffusionBatch, LossesAndGradients, StepOutcome, Trainable } from "./trainable.js";

export type { StepMeasures, StepReport } from "./report/step-report.js";

/** What happens where a loss or gradient is not finite. */
export const NON_FINITE_ACTIONS = ["stop", "rollback"] as const;

/** Settings of a {@link Trainer}. */
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

/** Most times that a run goes back for a loss or gradient that is not finite. */
export const MAX_ROLLBACKS = 10;

/** The batches of one step, and their number among all that were drawn. */
interface Drawn {
  number: number;
  batches: DiffusionBatch[];
}

/** Where the stream of batches stands. */
interface StreamPlace {
  state: ReturnType<DiffusionBatches["state"]>;
  drawn: number;
}

/**
 * Trains any {@link Trainable}: adapters, or a whole model.
 *
 * Where the trainable keeps the state of this optimizer and of this average on a device, and a step takes one batch, the
 * steps are done there; the state comes back for checkpoints, and for whatever else asks for it.
 */
export class Trainer {
  private step = 0;
  /** Where the stream stood when the last step was done; its next batch is the next step's. */
  private completed: StreamPlace | undefined;
  private writing: Promise<unknown> = Promise.resolve();
  private drawn = 0;
  private readonly skipped = new Set<number>();
  private readonly optimizerStep: OptimizerStep;
  private readonly folder: string;
  private readonly checkpoints: CheckpointPolicy;
  private readonly metrics: MetricsFile;
  private readonly engine: Engine;
  private readonly rankMean: RankMean | undefined;
  /** Whether this process is the one that writes. */
  private readonly isFirst: boolean;

  constructor(private readonly options: TrainerOptions) {
    const { trainable, optimizer, average, steps } = options;
    const { gradientAccumulation = 1, maxGradientNorm = 0, checkpointEvery = 0, keepCheckpoints } = options;
    checkInteger("steps", steps, 1);
    checkInteger("gradientAccumulation", gradientAccumulation, 1);
    if (!(maxGradientNorm >= 0))
      throw new ConfigError(`Trainer: maxGradientNorm must be 0 or more; got ${maxGradientNorm}.`);
    if (average && !average.isOf(trainable.parameters)) {
      throw new ConfigError(
        "Trainer: average must be one of the trainable's parameters; got one of others. " +
          "Make it with new ParameterAverage(trainable.parameters, decay).",
      );
    }
    if (average && optimizer.deliversAverage) {
      throw new ConfigError(`Trainer: ${optimizer.name} delivers an average of its own; leave average out.`);
    }
    const clipped = maxGradientNorm === 0 ? undefined : maxGradientNorm;
    const { rateOf } = options;
    const { ranks, signal } = options;
    this.isFirst = (ranks?.rank ?? 0) === 0;
    if (ranks && ranks.size > 1) {
      this.rankMean = new RankMean(ranks, gradientAccumulation, () => signal?.aborted === true);
    }
    const { rankMean } = this;
    const combine = rankMean && { combine: (own: LossesAndGradients) => rankMean.of(own) };
    this.optimizerStep = new OptimizerStep({
      ...{ trainable, optimizer, average, maxGradientNorm: clipped, rateOf },
      ...combine,
    });
    this.folder = join(options.output, "checkpoints");
    const keep = keepCheckpoints === undefined ? {} : { keep: keepCheckpoints };
    this.checkpoints = new CheckpointPolicy({ folder: this.folder, every: checkpointEvery, ...keep });
    this.metrics = new MetricsFile(join(options.output, "metrics.jsonl"));
    this.engine = options.engine ?? currentEngine();
  }

  /**
   * Puts the newest checkpoint of the output folder back; the run then goes on as if it had never been interrupted. One that
   * is damaged is set aside, and the one before is taken.
   *
   * @returns The step it continues from, 0 where there is no checkpoint.
   * @throws {TrainingError} If the checkpoint is of another training or has more steps than this one, or none can be read.
   */
  async resume(): Promise<number> {
    const newest = await newestCheckpointOf(this.folder, this.options.ranks);
    if (newest === undefined) return 0;
    const { path, checkpoint: saved, damaged } = newest;
    const { steps, fingerprint = "" } = this.options;
    refuseOtherFingerprint(path, saved.fingerprint, fingerprint);
    if (saved.step > steps) {
      throw new TrainingError(`${path}: ${saved.step} steps are done; steps must be that or more; got ${steps}.`);
    }
    await this.restore(path, saved);
    for (const { path: unreadable, reason } of this.isFirst ? damaged : []) {
      this.say(`${reason} It is now ${await setAside(unreadable)}; ${path} is taken instead.`);
    }
    const change = engineChange(saved.engine, this.engine);
    if (change !== undefined) this.say(`${path}: ${change}`);
    return this.step;
  }

  /**
   * Trains until `steps` are done or the signal fires; always leaves a checkpoint of where it ended.
   *
   * @throws {TrainingError} If a loss or gradient is not finite: names step, tensor and images; the last good checkpoint
   *   stays. If a file cannot be written, as on a full disk: names it, and the newest checkpoint.
   */
  async run(): Promise<TrainingResult> {
    const { options } = this;
    if (this.isFirst) {
      await prepareOutputFolder(this.folder);
      await clearLeftOvers(this.folder);
    }
    const rateOf = learningRateSchedule({
      ...options.scheduleShape,
      name: options.schedule ?? "constant",
      ...(options.decaySteps !== undefined && { decaySteps: options.decaySteps }),
      learningRate: options.optimizer.lr,
      warmupSteps: options.warmupSteps ?? 0,
      totalSteps: options.steps,
    });
    let place = this.place();
    if (this.step === 0 && this.isFirst) await this.startFresh(place);
    if (this.rankMean && this.isFirst) options.signal?.addEventListener("abort", () => this.keepCompleted());
    const startedAt = performance.now();
    let stepsDone = 0;
    // The next batch is drawn while ONNX Runtime computes; its checkpoint is the state before the draw.
    let upcoming = this.draw();
    while (this.step < options.steps && !this.isStopAsked) {
      const drawn = await upcoming;
      const { step } = this;
      const { isFrozen } = options;
      const learningRate = rateOf(step);
      const pending = this.optimizerStep.run(drawn.batches, {
        learningRate,
        isFrozen: isFrozen && ((name) => isFrozen(name, step)),
        name: `step ${this.step + 1}`,
        advice: () => this.adviceFor(drawn),
      });
      pending.catch(() => {});
      place = this.place();
      upcoming = this.draw();
      upcoming.catch(() => {});
      let outcome: StepOutcome;
      try {
        outcome = await pending;
      } catch (cause) {
        if (!(cause instanceof NonFiniteError) || options.onNonFinite !== "rollback") throw cause;
        await upcoming;
        place = await this.rollBack(cause, drawn);
        upcoming = this.draw();
        continue;
      }
      this.step++;
      this.completed = place;
      stepsDone++;
      const seconds = (performance.now() - startedAt) / 1000;
      const report: StepReport = {
        step: this.step,
        steps: options.steps,
        ...outcome.losses,
        learningRate,
        gradientNorm: outcome.gradientNorm,
        seconds,
        stepsPerSecond: stepsDone / seconds,
      };
      await this.afterStep(report, outcome, place);
    }
    await upcoming;
    await this.requireSame();
    const checkpoint = await this.save(place).catch((cause: unknown) => {
      throw this.named(cause);
    });
    const parameters = options.average?.values ?? options.optimizer.delivered(options.trainable.parameters);
    const { best } = this.checkpoints;
    return { step: this.step, finished: this.step >= options.steps, checkpoint, parameters, ...(best && { best }) };
  }

  /** Measures, tells, logs, and writes a checkpoint where one is due. */
  private async afterStep(report: StepReport, { sampleLosses }: StepOutcome, place: StreamPlace): Promise<void> {
    const { options } = this;
    const { checkpointEvery = 0 } = options;
    if (checkpointEvery > 0 && this.step % checkpointEvery === 0) await this.requireSame();
    if (!this.isFirst) return;
    let line: object | undefined;
    try {
      const told = sampleLosses && { timesteps: sampleLosses.timesteps, sampleLosses: sampleLosses.losses };
      const measured = await options.measure?.(this.step);
      // Node tells KiB.
      const peakMemoryBytes = process.resourceUsage().maxRSS * 1024;
      const measures: StepMeasures = { ...told, ...measured, peakMemoryBytes };
      if (measures.validation) this.checkpoints.observe(this.step, measures.validation.loss);
      line = { ...report, ...measures };
      await options.onStep?.(report, measures);
      await this.metrics.append(line);
      line = undefined;
      if (this.step < options.steps && this.checkpoints.isDue(this.step)) await this.save(place);
    } catch (cause) {
      // There may be room for it still, or elsewhere.
      if (isFailedWrite(cause)) {
        if (line) await this.metrics.append(line).catch(() => undefined);
        await this.save(place).catch(() => undefined);
      }
      throw this.named(cause);
    }
  }

  /** @throws {TrainingError} Where an earlier run left checkpoints: they would be mixed with this run's. */
  private async startFresh(place: StreamPlace): Promise<void> {
    const earlier = await latestCheckpoint(this.folder);
    if (earlier !== undefined && earlier !== this.checkpoints.newest) {
      throw new TrainingError(`${earlier}: left by an earlier run. Resume it, or choose another output folder.`);
    }
    try {
      await this.metrics.clear();
      const measures = await this.options.measure?.(0);
      if (measures) {
        await this.metrics.append({ step: 0, ...measures });
        if (measures.validation) this.checkpoints.observe(0, measures.validation.loss);
      }
      // What to go back to must be there before anything can go wrong.
      if (this.options.onNonFinite === "rollback" || this.checkpoints.isDue(0)) await this.save(place);
    } catch (cause) {
      throw this.named(cause);
    }
  }

  /** Where there are ranks, they must agree: all stop where one was asked to. */
  private get isStopAsked(): boolean {
    return this.rankMean ? this.rankMean.isStopAsked : this.options.signal?.aborted === true;
  }

  /**
   * A checkpoint of the last step that is done, at once: a launcher that ends its processes may give them a second, in which
   * no further step is done.
   */
  private async keepCompleted(): Promise<void> {
    const { step, completed } = this;
    if (!completed || this.checkpoints.newest === checkpointPath(this.folder, step)) return;
    const { parameters, optimizer, average, ...state } = this.stateAt(completed);
    // Copies: the next step goes on meanwhile.
    const copies = {
      parameters: copied(parameters),
      optimizer: copied(optimizer),
      average: average && copied(average),
    };
    try {
      this.say(`step ${step} is kept in ${await this.write({ ...state, ...copies })}`);
    } catch (cause) {
      this.say((this.named(cause) as Error).message);
    }
  }

  /** @throws {TrainingError} If the ranks do not have the same parameters to the bit. */
  private async requireSame(): Promise<void> {
    const { ranks, trainable } = this.options;
    if (ranks && ranks.size > 1) await requireSameOnAll(ranks, trainable.parameters, `step ${this.step}`);
  }

  private place(): StreamPlace {
    return { state: this.options.batches.state(), drawn: this.drawn };
  }

  /** The next step's batches; those that are skipped are drawn and forgotten, so that all others stay the same. */
  private async draw(): Promise<Drawn> {
    for (;;) {
      const number = this.drawn++;
      const batches: DiffusionBatch[] = [];
      for (let i = 0; i < (this.options.gradientAccumulation ?? 1); i++) {
        batches.push(await this.options.batches.next());
      }
      if (!this.skipped.has(number)) return { number, batches };
    }
  }

  /** Goes back to the newest checkpoint, from where the step's batches are left out. @throws The cause, if too often. */
  private async rollBack(cause: NonFiniteError, { number }: Drawn): Promise<StreamPlace> {
    if (this.skipped.size >= MAX_ROLLBACKS) {
      throw new TrainingError(`${cause.message} It has gone back ${MAX_ROLLBACKS} times, and does not do so again.`, {
        cause,
      });
    }
    const newest = await newestCheckpointOf(this.folder, this.options.ranks);
    if (newest === undefined) throw cause;
    this.skipped.add(number);
    await this.restore(newest.path, newest.checkpoint);
    this.say(
      `${cause.message} Going back to step ${this.step}, and on without this batch ` +
        `(${this.skipped.size} of at most ${MAX_ROLLBACKS} times).`,
    );
    return this.place();
  }

  /** Puts a checkpoint's state back, and forgets the metrics of later steps. */
  private async restore(path: string, saved: Checkpoint): Promise<void> {
    const { trainable, optimizer, average, batches } = this.options;
    restoreInto(trainable.parameters, saved.parameters, path);
    if (average) {
      restoreInto(average.values, saved.average ?? new Map(), path);
      average.updates = saved.step;
    }
    optimizer.loadStateDict(new Map(saved.optimizer));
    const { lossScale } = trainable;
    if (lossScale instanceof LossScale && saved.lossScale) lossScale.restore(saved.lossScale);
    batches.restore(saved.stream as ReturnType<DiffusionBatches["state"]>);
    this.step = saved.step;
    this.drawn = saved.drawn ?? saved.step;
    for (const number of saved.skipped ?? []) this.skipped.add(number);
    this.checkpoints.restore(path, saved.best);
    if (!this.isFirst) return;
    await this.metrics.truncate(this.step);
    await this.options.onRestore?.(this.step);
  }

  private adviceFor({ batches }: Drawn): string {
    const { trainable, nameOf } = this.options;
    const inputs = describeStepInputs(batches, trainable.parameters, nameOf);
    return `${inputs === "" ? "" : `${inputs} `}${this.kept}; lower the learning rate or clip gradients.`;
  }

  private get kept(): string {
    const { newest } = this.checkpoints;
    return newest === undefined ? "There is no checkpoint yet" : `${newest} is intact`;
  }

  private say(message: string): void {
    const { onMessage = process.emitWarning } = this.options;
    onMessage(message);
  }

  /** The error that a user can do something about, where a file could not be written; any other as it is. */
  private named(cause: unknown): unknown {
    if (!isFailedWrite(cause)) return cause;
    const message = describeSystemError(cause) ?? (cause as Error).message;
    const next = this.checkpoints.newest === undefined ? "start again" : "resume";
    return new TrainingError(`step ${this.step}: ${message} ${this.kept}; ${next} once this is mended.`, { cause });
  }

  private async save(place: StreamPlace): Promise<string> {
    // The others have no folder to write to; they wait at the next step's sum.
    if (!this.isFirst) return checkpointPath(this.folder, this.step);
    return this.write(this.stateAt(place));
  }

  /** One after the other. */
  private async write(checkpoint: Checkpoint): Promise<string> {
    const { onCheckpoint } = this.options;
    const writing = this.writing.then(() => {
      onCheckpoint?.("writing");
      return this.checkpoints.save(checkpoint);
    });
    this.writing = writing.catch(() => undefined);
    const path = await writing;
    onCheckpoint?.("written");
    return path;
  }

  private stateAt({ state, drawn }: StreamPlace): Checkpoint {
    const { trainable, optimizer, average, fingerprint = "" } = this.options;
    return {
      step: this.step,
      parameters: trainable.parameters,
      optimizer: optimizer.stateDict(),
      lossScale: trainable.lossScale instanceof LossScale ? trainable.lossScale.state() : undefined,
      average: average?.values,
      stream: state,
      fingerprint,
      engine: this.engine,
      drawn,
      skipped: [...this.skipped],
    };
  }
}

const copied = <D extends DType>(tensors: ReadonlyMap<string, Tensor<D>>): Map<string, Tensor<D>> =>
  new Map(
    [...tensors].map(([name, { dtype, shape, data }]) => [name, new Tensor(dtype, shape, data.slice() as never)]),
  );

function checkInteger(name: string, value: number, least: number): void {
  if (!Number.isSafeInteger(value) || value < least) {
    throw new ConfigError(`Trainer: ${name} must be an integer of ${least} or more; got ${value}.`);
  }
}
