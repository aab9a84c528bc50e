// The training loop: batches in, optimizer steps, metrics and checkpoints out. Node only, for its files.

import { appendFile, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ConfigError, TrainingError } from "../errors.js";
import { allFinite, flatValues, type Tensor } from "../tensor/tensor.js";
import type { ParameterAverage } from "./average.js";
import { latestCheckpoint, prepareOutputFolder, readCheckpoint, restoreInto, saveCheckpoint } from "./checkpoint.js";
import type { DiffusionBatches } from "./diffusion-batches.js";
import { type LearningRateScheduleName, learningRateSchedule } from "./learning-rate.js";
import { clipGradients, gradientNorm } from "./optimizers/gradient-clipping.js";
import type { Optimizer } from "./optimizers/optimizer.js";
import type {
  DiffusionBatch,
  Losses,
  LossesAndGradients,
  OptimizerSteps,
  StepOutcome,
  Trainable,
} from "./trainable.js";

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
  /** Called after every step. */
  onStep?: (report: StepReport) => void | Promise<void>;
  /** Ends the run after the current step, with a checkpoint. */
  signal?: AbortSignal;
}

/** What one step did. */
export interface StepReport extends StepOutcome {
  /** Steps done, this one included. */
  step: number;
  steps: number;
  learningRate: number;
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
  /** The trainable's own steps, where they can be used. */
  private readonly ownSteps: OptimizerSteps | undefined;
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
    const { optimizerSteps: own } = trainable;
    const fits = own?.optimizer === optimizer && own.average === average && gradientAccumulation === 1;
    this.ownSteps = fits ? own : undefined;
    this.checkpoints = join(options.output, "checkpoints");
    this.metrics = join(options.output, "metrics.jsonl");
  }

  /**
   * Puts the newest checkpoint of the output folder back; the run then goes on as if it had never been cut.
   *
   * @returns The step it continues from, 0 where there is no checkpoint.
   * @throws {TrainingError} If the checkpoint is of another training.
   */
  async resume(): Promise<number> {
    const path = await latestCheckpoint(this.checkpoints);
    if (path === undefined) return 0;
    const { trainable, optimizer, average, batches, fingerprint = "" } = this.options;
    const kept = await readCheckpoint(path);
    if (kept.fingerprint !== fingerprint) {
      throw new TrainingError(
        `${path}: made with other settings: ${differences(kept.fingerprint, fingerprint)}. ` +
          "Resume with the same ones, or choose another output folder.",
      );
    }
    restoreInto(trainable.parameters, kept.parameters, path);
    if (average) {
      restoreInto(average.values, kept.average ?? new Map(), path);
      average.updates = kept.step;
    }
    optimizer.loadStateDict(new Map(kept.optimizer));
    batches.restore(kept.stream as ReturnType<DiffusionBatches["state"]>);
    this.step = kept.step;
    this.lastCheckpoint = path;
    await this.truncateMetrics();
    return this.step;
  }

  /**
   * Trains until `steps` are done or the signal fires; always leaves a checkpoint of where it ended.
   *
   * @throws {TrainingError} If a loss or gradient is not finite: names step and tensor; the last good checkpoint stays.
   */
  async run(): Promise<TrainingResult> {
    const { options } = this;
    await prepareOutputFolder(this.checkpoints);
    if (this.step === 0) await this.startAnew();
    const rateOf = learningRateSchedule({
      name: options.schedule ?? "constant",
      learningRate: options.optimizer.lr,
      warmupSteps: options.warmupSteps ?? 0,
      totalSteps: options.steps,
    });
    const startedAt = performance.now();
    const firstStep = this.step;
    // The next batch is drawn while ONNX Runtime computes; its checkpoint is the state before the draw.
    let stream = options.batches.state();
    let upcoming = this.draw();
    while (this.step < options.steps && !options.signal?.aborted) {
      const learningRate = rateOf(this.step);
      const pending = this.advance(upcoming, learningRate);
      pending.catch(() => {});
      stream = options.batches.state();
      upcoming = this.draw();
      const { gradientNorm, ...losses } = await pending;
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
      await appendFile(this.metrics, `${JSON.stringify(report)}\n`);
      await options.onStep?.(report);
      const due = options.checkpointEvery && this.step % options.checkpointEvery === 0;
      if (due && this.step < options.steps) await this.save(stream);
    }
    const checkpoint = await this.save(stream);
    const parameters = options.average?.values ?? options.trainable.parameters;
    return { step: this.step, finished: this.step >= options.steps, checkpoint, parameters };
  }

  /** @throws {TrainingError} Where an earlier run left checkpoints: they would be mixed with this run's. */
  private async startAnew(): Promise<void> {
    const earlier = await latestCheckpoint(this.checkpoints);
    if (earlier !== undefined) {
      throw new TrainingError(`${earlier}: left by an earlier run. Resume it, or choose another output folder.`);
    }
    await writeFile(this.metrics, "");
  }

  private draw(): DiffusionBatch[] {
    return Array.from({ length: this.options.gradientAccumulation ?? 1 }, () => this.options.batches.next());
  }

  /** One step of the optimizer, and one update of the average. */
  private async advance(batches: readonly DiffusionBatch[], learningRate: number): Promise<StepOutcome> {
    const { trainable, optimizer, average, maxGradientNorm = 0 } = this.options;
    if (this.ownSteps) {
      const accept = this.requireFinite;
      return this.ownSteps.step(batches[0]!, { learningRate, maxGradientNorm: maxGradientNorm || undefined, accept });
    }
    const { gradients, losses } = await this.gradients(batches);
    const norm = maxGradientNorm ? clipGradients(gradients, maxGradientNorm) : gradientNorm(gradients);
    const outcome = { ...losses, gradientNorm: norm };
    this.requireFinite(outcome, () => gradients);
    optimizer.step(flatValues(trainable.parameters), gradients, { learningRate });
    average?.update();
    return outcome;
  }

  /** Mean losses and gradients over the batches of one step. */
  private async gradients(batches: readonly DiffusionBatch[]): Promise<LossesAndGradients> {
    const { trainable } = this.options;
    const first = await trainable.compute(batches[0]!);
    if (batches.length === 1) return first;
    const sums: Record<string, number> = { ...first.losses };
    for (const batch of batches.slice(1)) {
      const next = await trainable.compute(batch);
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
    return { losses: Object.fromEntries(means) as unknown as Losses, gradients: first.gradients };
  }

  private readonly requireFinite = (
    { gradientNorm, ...losses }: StepOutcome,
    gradients: () => ReadonlyMap<string, Float32Array>,
  ): void => {
    const bad = Object.entries(losses).find(([, value]) => !Number.isFinite(value));
    const where = `step ${this.step + 1}`;
    const kept = this.lastCheckpoint === undefined ? "There is no checkpoint yet" : `${this.lastCheckpoint} is intact`;
    const advice = `${kept}; lower the learning rate or clip gradients.`;
    if (bad) throw new TrainingError(`${where}: ${bad[0]} is ${bad[1]}. ${advice}`);
    if (Number.isFinite(gradientNorm)) return;
    const name = [...gradients()].find(([, gradient]) => !allFinite(gradient))?.[0];
    // Finite gradients can have a norm that leaves the float32 range of a device.
    const what =
      name === undefined ? `the norm of all gradients is ${gradientNorm}` : `the gradient of "${name}" is not finite`;
    throw new TrainingError(`${where}: ${what}. ${advice}`);
  };

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
    const text = await readFile(this.metrics, "utf8").catch(() => "");
    const lines = text.split("\n").filter((line) => {
      const report = parsed(line) as Partial<StepReport> | undefined;
      return typeof report?.step === "number" && report.step <= this.step;
    });
    await writeFile(this.metrics, lines.map((line) => `${line}\n`).join(""));
  }
}

function checkInteger(name: string, value: number, least: number): void {
  if (!Number.isSafeInteger(value) || value < least) {
    throw new ConfigError(`Trainer: ${name} must be an integer of ${least} or more; got ${value}.`);
  }
}

/** Which of the settings in two fingerprints differ: "rank was 4, is 8"; of texts that are no JSON objects, both. */
function differences(before: string, now: string): string {
  const [was, is] = [parsed(before), parsed(now)];
  if (typeof was !== "object" || typeof is !== "object" || !was || !is)
    return `${before || "none"}, now ${now || "none"}`;
  const flat = (settings: object) =>
    new Map(
      Object.entries(settings).flatMap(([key, value]) =>
        key === "config" && typeof value === "object" && value ? Object.entries(value) : [[key, value]],
      ),
    );
  const [wasFlat, isFlat] = [flat(was), flat(is)];
  const shown = (value: unknown): string => JSON.stringify(value) ?? "none";
  return [...new Set([...wasFlat.keys(), ...isFlat.keys()])]
    .map((key) => [key, shown(wasFlat.get(key)), shown(isFlat.get(key))] as const)
    .filter(([, old, current]) => old !== current)
    .map(([key, old, current]) => `${key} was ${old}, is ${current}`)
    .join("; ");
}

/** Undefined where the text is no JSON. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
