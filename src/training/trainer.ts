// The training loop: batches in, optimizer steps, metrics and checkpoints out. Node only, for its files.

import { appendFile, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ConfigError, FormatError, TrainingError } from "../errors.js";
import { describeSystemError, isSystemError, reasonOf, writeFileAtomically } from "../storage/file-access.js";
import type { Tensor } from "../tensor/tensor.js";
import type { ParameterAverage } from "./average.js";
import {
  latestCheckpoint,
  prepareOutputFolder,
  readNewestCheckpoint,
  restoreInto,
  saveCheckpoint,
  setAside,
} from "./checkpoint.js";
import type { DiffusionBatches } from "./diffusion-batches.js";
import { refuseOtherFingerprint } from "./fingerprint.js";
import { type LearningRateScheduleName, learningRateSchedule } from "./learning-rate.js";
import { OptimizerStep } from "./optimizer-step.js";
import type { Optimizer } from "./optimizers/optimizer.js";
import type { DiffusionBatch, Losses, Trainable } from "./trainable.js";

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
  warmupSteps?: number;
  /** Batches whose gradients are averaged into one step. */
  gradientAccumulation?: number;
  /** Largest L2 norm of all gradients together; 0 for no clipping. */
  maxGradientNorm?: number;
  /** An average of the parameters, which is then the result. */
  average?: ParameterAverage;
  /** Steps between checkpoints; 0 for one at the end only. */
  checkpointEvery?: number;
  /** Says what must agree for a resumed run to be the same run: seed, data, configuration. */
  fingerprint?: string;
  /** Told what is good to know, such as that a damaged checkpoint was passed over; a warning of the process by default. */
  onMessage?: (message: string) => void;
  /** Called after every step, before it is logged. */
  onStep?: (report: StepReport) => void | Promise<void>;
  /** Ends the run after the current step, with a checkpoint. */
  signal?: AbortSignal;
}

/** What one step did: its loss terms by name, and the numbers around them. */
export interface StepReport extends Losses {
  /** Steps done, this one included. */
  step: number;
  steps: number;
  learningRate: number;
  /** L2 norm of all gradients together, before clipping. */
  gradientNorm: number;
  /** Since the run began. */
  seconds: number;
  stepsPerSecond: number;
}

/** How a run ended. */
export interface TrainingResult {
  step: number;
  /** False where the signal ended it early. */
  finished: boolean;
  checkpoint: string;
  /** The averaged parameters, or the parameters themselves without an average. */
  parameters: ReadonlyMap<string, Tensor<"float32">>;
}

/**
 * Trains any {@link Trainable}: adapters, or a whole model.
 *
 * Where the trainable keeps the state of this optimizer and of this average on a device, and a step takes one batch, the
 * steps are done there; the state comes back for checkpoints, and for whatever else asks for it.
 */
export class Trainer {
  private step = 0;
  private lastCheckpoint: string | undefined;
  private readonly optimizerStep: OptimizerStep;
  private readonly checkpoints: string;
  private readonly metrics: string;

  constructor(private readonly options: TrainerOptions) {
    const { trainable, optimizer, average, steps } = options;
    const { gradientAccumulation = 1, maxGradientNorm = 0, checkpointEvery = 0 } = options;
    checkInteger("steps", steps, 1);
    checkInteger("gradientAccumulation", gradientAccumulation, 1);
    checkInteger("checkpointEvery", checkpointEvery, 0);
    if (!(maxGradientNorm >= 0))
      throw new ConfigError(`Trainer: maxGradientNorm must be 0 or more; got ${maxGradientNorm}.`);
    if (average && !average.isOf(trainable.parameters)) {
      throw new ConfigError(
        "Trainer: average must be one of the trainable's parameters; got one of others. " +
          "Make it with new ParameterAverage(trainable.parameters, decay).",
      );
    }
    const clipped = maxGradientNorm === 0 ? undefined : maxGradientNorm;
    this.optimizerStep = new OptimizerStep({ trainable, optimizer, average, maxGradientNorm: clipped });
    this.checkpoints = join(options.output, "checkpoints");
    this.metrics = join(options.output, "metrics.jsonl");
  }

  /**
   * Puts the newest checkpoint of the output folder back; the run then goes on as if it had never been interrupted. One that
   * is damaged is set aside, and the one before is taken.
   *
   * @returns The step it continues from, 0 where there is no checkpoint.
   * @throws {TrainingError} If the checkpoint is of another training or has more steps than this one, or none can be read.
   */
  async resume(): Promise<number> {
    const newest = await readNewestCheckpoint(this.checkpoints);
    if (newest === undefined) return 0;
    const { path, checkpoint: saved, damaged } = newest;
    const { trainable, optimizer, average, batches, steps, fingerprint = "" } = this.options;
    refuseOtherFingerprint(path, saved.fingerprint, fingerprint);
    if (saved.step > steps) {
      throw new TrainingError(`${path}: ${saved.step} steps are done; steps must be that or more; got ${steps}.`);
    }
    restoreInto(trainable.parameters, saved.parameters, path);
    if (average) {
      restoreInto(average.values, saved.average ?? new Map(), path);
      average.updates = saved.step;
    }
    optimizer.loadStateDict(new Map(saved.optimizer));
    batches.restore(saved.stream as ReturnType<DiffusionBatches["state"]>);
    this.step = saved.step;
    this.lastCheckpoint = path;
    for (const { path: unreadable, reason } of damaged) {
      const { onMessage = process.emitWarning } = this.options;
      onMessage(`${reason} It is now ${await setAside(unreadable)}; ${path} is taken instead.`);
    }
    await this.truncateMetrics();
    return this.step;
  }

  /**
   * Trains until `steps` are done or the signal fires; always leaves a checkpoint of where it ended.
   *
   * @throws {TrainingError} If a loss or gradient is not finite: names step and tensor; the last good checkpoint stays. If a
   *   file cannot be written, as on a full disk: names it, and the newest checkpoint.
   */
  async run(): Promise<TrainingResult> {
    const { options } = this;
    await prepareOutputFolder(this.checkpoints);
    if (this.step === 0) await this.startFresh();
    const rateOf = learningRateSchedule({
      name: options.schedule ?? "constant",
      learningRate: options.optimizer.lr,
      warmupSteps: options.warmupSteps ?? 0,
      totalSteps: options.steps,
    });
    const startedAt = performance.now();
    const firstStep = this.step;
    // The next batch is drawn and read while ONNX Runtime computes; its checkpoint is the state before the draw.
    let stream = options.batches.state();
    let upcoming = this.draw();
    while (this.step < options.steps && !options.signal?.aborted) {
      const learningRate = rateOf(this.step);
      const pending = this.optimizerStep.run(await upcoming, {
        learningRate,
        name: `step ${this.step + 1}`,
        advice: this.advice,
      });
      pending.catch(() => {});
      stream = options.batches.state();
      upcoming = this.draw();
      const { losses, gradientNorm } = await pending;
      this.step++;
      const seconds = (performance.now() - startedAt) / 1000;
      const stepsPerSecond = (this.step - firstStep) / seconds;
      const report: StepReport = {
        step: this.step,
        steps: options.steps,
        ...losses,
        learningRate,
        gradientNorm,
        seconds,
        stepsPerSecond,
      };
      try {
        await options.onStep?.(report);
        await this.log(report);
        const due = options.checkpointEvery && this.step % options.checkpointEvery === 0;
        if (due && this.step < options.steps) await this.save(stream);
      } catch (cause) {
        // There may be room for it still, or elsewhere.
        if (isFailedWrite(cause)) await this.save(stream).catch(() => undefined);
        throw this.named(cause);
      }
    }
    const checkpoint = await this.save(stream).catch((cause: unknown) => {
      throw this.named(cause);
    });
    const parameters = options.average?.values ?? options.trainable.parameters;
    return { step: this.step, finished: this.step >= options.steps, checkpoint, parameters };
  }

  /** @throws {TrainingError} Where an earlier run left checkpoints: they would be mixed with this run's. */
  private async startFresh(): Promise<void> {
    const earlier = await latestCheckpoint(this.checkpoints);
    if (earlier !== undefined) {
      throw new TrainingError(`${earlier}: left by an earlier run. Resume it, or choose another output folder.`);
    }
    await writeFile(this.metrics, "");
  }

  private draw(): Promise<DiffusionBatch[]> {
    const { batches, gradientAccumulation = 1 } = this.options;
    const drawn = Promise.all(Array.from({ length: gradientAccumulation }, () => batches.next()));
    // Heard of where it is awaited; after the last step it is not.
    drawn.catch(() => undefined);
    return drawn;
  }

  private readonly advice = (): string => `${this.kept}; lower the learning rate or clip gradients.`;

  private get kept(): string {
    return this.lastCheckpoint === undefined ? "There is no checkpoint yet" : `${this.lastCheckpoint} is intact`;
  }

  private async log(report: StepReport): Promise<void> {
    await appendFile(this.metrics, `${JSON.stringify(report)}\n`).catch((cause: NodeJS.ErrnoException) => {
      throw new FormatError(this.metrics, `cannot be written: ${reasonOf(cause)}.`, { cause });
    });
  }

  /** The error that a user can do something about, where a file could not be written; any other as it is. */
  private named(cause: unknown): unknown {
    if (!isFailedWrite(cause)) return cause;
    const message = describeSystemError(cause) ?? (cause as Error).message;
    const next = this.lastCheckpoint === undefined ? "start again" : "resume";
    return new TrainingError(`step ${this.step}: ${message} ${this.kept}; ${next} once this is mended.`, { cause });
  }

  private async save(stream: unknown): Promise<string> {
    const { trainable, optimizer, average, fingerprint = "" } = this.options;
    this.lastCheckpoint = await saveCheckpoint(this.checkpoints, {
      step: this.step,
      parameters: trainable.parameters,
      optimizer: optimizer.stateDict(),
      average: average?.values,
      stream,
      fingerprint,
    });
    return this.lastCheckpoint;
  }

  /** Forgets the lines of steps after the checkpoint, which will be written again, and one that was cut off. */
  private async truncateMetrics(): Promise<void> {
    const text = await readFile(this.metrics, "utf8").catch(() => undefined);
    const lines = (text ?? "").split("\n").filter((line) => {
      const report = parsed(line) as Partial<StepReport> | undefined;
      return typeof report?.step === "number" && report.step <= this.step;
    });
    const kept = lines.map((line) => `${line}\n`).join("");
    if (kept !== text) await writeFileAtomically(this.metrics, [new TextEncoder().encode(kept)]);
  }
}

function checkInteger(name: string, value: number, least: number): void {
  if (!Number.isSafeInteger(value) || value < least) {
    throw new ConfigError(`Trainer: ${name} must be an integer of ${least} or more; got ${value}.`);
  }
}

/** Whether it is the operating system that refused to write a file. */
function isFailedWrite(error: unknown): boolean {
  return isSystemError(error) || (error instanceof FormatError && isSystemError(error.cause));
}

/** Undefined where the text is no JSON. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
