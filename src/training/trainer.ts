// The training loop: batches in, optimizer steps, metrics and checkpoints out. Node only, for its files.

import { join } from "node:path";
import { ConfigError, TrainingError } from "../errors.js";
import { describeSystemError, isFailedWrite } from "../storage/file-access.js";
import { type Checkpoint, latestCheckpoint, prepareOutputFolder, setAside } from "./checkpoint.js";
import { currentEngine, type Engine, engineChange } from "./engine.js";
import { refuseOtherFingerprint } from "./fingerprint.js";
import { learningRateSchedule } from "./learning-rate.js";
import { clearLeftOvers } from "./left-overs.js";
import { describeStepInputs, NonFiniteError } from "./non-finite.js";
import { OptimizerStep } from "./optimizer-step.js";
import { newestCheckpointOf, requireSameOnAll } from "./rank-checkpoints.js";
import { RankMean } from "./rank-mean.js";
import { MetricsFile } from "./report/metrics-file.js";
import type { StepMeasures, StepReport } from "./report/step-report.js";
import type { DiffusionBatch, LossesAndGradients, StepOutcome } from "./trainable.js";
import type { TrainerOptions, TrainingResult } from "./trainer-options.js";
import { type StreamPlace, type TrainingPlace, TrainingStates } from "./training-states.js";

export type { StepMeasures, StepReport } from "./report/step-report.js";
export type { TrainerOptions, TrainingResult } from "./trainer-options.js";

/** Most times that a run goes back for a loss or gradient that is not finite. */
export const MAX_ROLLBACKS = 10;

/** The batches of one step, and their number among all that were drawn. */
interface Drawn {
  number: number;
  batches: DiffusionBatch[];
}

/**
 * Trains any `Trainable`: adapters, or a whole model.
 *
 * Where the trainable keeps the state of this optimizer and of this average on a device, and a step takes one batch, the
 * steps are done there; the state comes back for checkpoints, and for whatever else asks for it.
 */
export class Trainer {
  private step = 0;
  /** Where the stream stood when the last step was done; its next batch is the next step's. */
  private completed: StreamPlace | undefined;
  private drawn = 0;
  private readonly skipped = new Set<number>();
  private readonly optimizerStep: OptimizerStep;
  private readonly states: TrainingStates;
  private readonly metrics: MetricsFile;
  private readonly engine: Engine;
  private readonly rankMean: RankMean | undefined;
  /** Whether this process is the one that writes. */
  private readonly isFirst: boolean;

  constructor(private readonly options: TrainerOptions) {
    const { trainable, optimizer, average, steps } = options;
    const { gradientAccumulation = 1, maxGradientNorm = 0 } = options;
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
    this.engine = options.engine ?? currentEngine();
    this.states = new TrainingStates(options, this.engine);
    this.metrics = new MetricsFile(join(options.output, "metrics.jsonl"));
  }

  /**
   * Puts the newest checkpoint of the output folder back; the run then goes on as if it had never been interrupted. One that
   * is damaged is set aside, and the one before is taken.
   *
   * @returns The step it continues from, 0 where there is no checkpoint.
   * @throws {TrainingError} If the checkpoint is of another training or has more steps than this one, or none can be read.
   */
  async resume(): Promise<number> {
    const newest = await newestCheckpointOf(this.states.folder, this.options.ranks);
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
      await prepareOutputFolder(this.states.folder);
      await clearLeftOvers(this.states.folder);
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
    const { best } = this.states.policy;
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
      if (measures.validation) this.states.policy.observe(this.step, measures.validation.loss);
      line = { ...report, ...measures };
      await options.onStep?.(report, measures);
      await this.metrics.append(line);
      line = undefined;
      if (this.step < options.steps && this.states.policy.isDue(this.step)) await this.save(place);
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
    const earlier = await latestCheckpoint(this.states.folder);
    if (earlier !== undefined && earlier !== this.states.policy.newest) {
      throw new TrainingError(`${earlier}: left by an earlier run. Resume it, or choose another output folder.`);
    }
    try {
      await this.metrics.clear();
      const measures = await this.options.measure?.(0);
      if (measures) {
        await this.metrics.append({ step: 0, ...measures });
        if (measures.validation) this.states.policy.observe(0, measures.validation.loss);
      }
      // What to go back to must be there before anything can go wrong.
      if (this.options.onNonFinite === "rollback" || this.states.policy.isDue(0)) await this.save(place);
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
    const { step, completed, states } = this;
    if (!completed || states.policy.newest === states.pathOf(step)) return;
    try {
      this.say(`step ${step} is kept in ${await states.saveCopy(this.placeAt(completed))}`);
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
    const newest = await newestCheckpointOf(this.states.folder, this.options.ranks);
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
    this.states.restore(path, saved);
    this.step = saved.step;
    this.drawn = saved.drawn ?? saved.step;
    for (const number of saved.skipped ?? []) this.skipped.add(number);
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
    const { newest } = this.states.policy;
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
    const next = this.states.policy.newest === undefined ? "start again" : "resume";
    return new TrainingError(`step ${this.step}: ${message} ${this.kept}; ${next} once this is mended.`, { cause });
  }

  private async save(place: StreamPlace): Promise<string> {
    // The others have no folder to write to; they wait at the next step's sum.
    return this.isFirst ? this.states.save(this.placeAt(place)) : this.states.pathOf(this.step);
  }

  private placeAt(place: StreamPlace): TrainingPlace {
    return { ...place, step: this.step, skipped: this.skipped };
  }
}

function checkInteger(name: string, value: number, least: number): void {
  if (!Number.isSafeInteger(value) || value < least) {
    throw new ConfigError(`Trainer: ${name} must be an integer of ${least} or more; got ${value}.`);
  }
}
