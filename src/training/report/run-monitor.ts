// What is looked at while a training runs: validation loss, gates, pictures, event files, and the time that is left.

import { FeRAConfig, type FeRAModel } from "../../adapters/index.js";
import type { Objective } from "../../diffusion/index.js";
import type { EncodedDataset, EncodedRows } from "../encoded-dataset.js";
import { gatesAlong } from "../gates-along.js";
import type { LOGS } from "../options/run-options.js";
import { outputPath } from "../output-folder.js";
import type { SavedModel } from "../saved-model.js";
import { ValidationLoss } from "../validation-loss.js";
import type { DrawnPictures, ValidationPictures } from "../validation-pictures.js";
import { EventLog } from "./event-log.js";
import type { StepMeasures, StepReport, ValidationReport } from "./step-report.js";
import { TimeLeft } from "./time-left.js";

/** What a training is doing between its steps. */
export type MonitorPhase =
  | { kind: "validating"; step: number; done: number; of: number }
  | { kind: "validated"; step: number; report: ValidationReport }
  | { kind: "drawing"; step: number; images: number }
  | { kind: "validation"; path: string };

/** Settings of a {@link RunMonitor}. */
export interface RunMonitorOptions {
  model: SavedModel;
  objective: Objective;
  /** What is trained on: a router's gates are told on it where there is no validation data. */
  data: EncodedDataset | EncodedRows;
  validationData?: EncodedDataset | EncodedRows | undefined;
  /** 0 for never. */
  validationLossEvery: number;
  pictures: ValidationPictures;
  validateEvery?: number | undefined;
  steps: number;
  batchSize: number;
  checkpointEvery: number;
  output: string;
  /** Called before something is predicted or drawn: there is no memory for that beside the step. */
  makeRoom?: (() => Promise<void>) | undefined;
  log: (typeof LOGS)[number];
  onPhase?: ((phase: MonitorPhase) => unknown) | undefined;
  onStep?: ((report: StepReport, secondsLeft: number | undefined) => void) | undefined;
}

/** Times that a router's gates are told in a training without validation. */
const GATES_TOLD = 20;

/** The trainer's eyes. Changes nothing that is trained. */
export class RunMonitor {
  private readonly validation: ValidationLoss | undefined;
  private readonly log: EventLog | undefined;
  private readonly timeLeft: TimeLeft;
  private stepEndedAt = performance.now();
  private checkpointBeganAt = 0;

  constructor(private readonly options: RunMonitorOptions) {
    const { validationData, objective, batchSize, steps, checkpointEvery, validationLossEvery } = options;
    if (validationData && validationLossEvery > 0) {
      const onProgress = (done: number, of: number) =>
        options.onPhase?.({ kind: "validating", step: this.measuredStep, done, of });
      this.validation = new ValidationLoss(validationData, { objective, batchSize, onProgress });
    }
    if (options.log === "tensorboard") this.log = new EventLog(outputPath(options.output, "eventLog"));
    this.timeLeft = new TimeLeft(steps, {
      validation: { every: this.validation ? validationLossEvery : 0, atEnd: this.validation !== undefined },
      drawing: {
        every: options.pictures.count === 0 ? 0 : (options.validateEvery ?? Math.ceil(steps / 4)),
        atEnd: options.pictures.count > 0,
      },
      checkpoint: { every: checkpointEvery, atEnd: true },
    });
  }

  private measuredStep = 0;

  /** The pictures without the adapter, before the first step: they tell how long drawing takes, and whether memory suffices. */
  async begin(step: number): Promise<void> {
    const { pictures, onPhase } = this.options;
    if (pictures.count > 0) onPhase?.({ kind: "drawing", step, images: pictures.count });
    const startedAt = performance.now();
    if (pictures.count > 0) await this.options.makeRoom?.();
    const drawn = await pictures.drawWithout();
    if (drawn > 0) this.took("drawing", ((performance.now() - startedAt) * pictures.count) / drawn);
    if (step === 0) await this.log?.start(1);
    // Where a run was cut off between a step and its pictures.
    else await this.tell(step, await pictures.drawMissing(step));
    this.stepEndedAt = performance.now();
  }

  /** For the trainer's `measure`. */
  async measure(step: number): Promise<StepMeasures | undefined> {
    this.stepTook(step);
    const { model, data, objective, steps, validationLossEvery, validationData, onPhase } = this.options;
    const measures: StepMeasures = {};
    const isDue = (every: number) => step % every === 0 || step === steps;
    if (this.validation && isDue(validationLossEvery)) {
      this.measuredStep = step;
      const startedAt = performance.now();
      await this.options.makeRoom?.();
      measures.validation = await this.validation.measure(model.predictor());
      if (this.options.makeRoom) await model.current().release();
      this.took("validation", performance.now() - startedAt);
      onPhase?.({ kind: "validated", step, report: measures.validation });
    }
    const gatesDue = this.validation
      ? measures.validation !== undefined
      : step > 0 && isDue(Math.ceil(steps / GATES_TOLD));
    const { config } = model;
    if (gatesDue && config instanceof FeRAConfig && config.numExperts > 1) {
      measures.gates = await gatesAlong(model.current() as FeRAModel, validationData ?? data, objective);
    }
    if (step === 0) await this.log?.step(0, undefined, measures);
    return Object.keys(measures).length === 0 ? undefined : measures;
  }

  /** For the trainer's `onStep`. */
  async afterStep(report: StepReport, measures: StepMeasures): Promise<void> {
    const { pictures, onPhase, onStep } = this.options;
    const { step } = report;
    await this.log?.step(step, report, measures);
    onStep?.(report, this.timeLeft.after(step));
    if (pictures.isDue(step)) {
      onPhase?.({ kind: "drawing", step, images: pictures.count });
      const startedAt = performance.now();
      await this.options.makeRoom?.();
      const drawn = await pictures.draw(step);
      if (drawn) this.took("drawing", performance.now() - startedAt);
      await this.tell(step, drawn);
    }
    this.stepEndedAt = performance.now();
  }

  /** For the trainer's `onRestore`. */
  async restored(step: number): Promise<void> {
    await this.log?.start(step + 1);
    this.stepEndedAt = performance.now();
  }

  /** For the trainer's `onCheckpoint`. */
  checkpoint(event: "writing" | "written"): void {
    if (event === "writing") this.checkpointBeganAt = performance.now();
    else {
      this.took("checkpoint", performance.now() - this.checkpointBeganAt);
      this.stepEndedAt = performance.now();
    }
  }

  private async tell(step: number, drawn: DrawnPictures | undefined): Promise<void> {
    if (!drawn) return;
    await this.log?.pictures(step, drawn.images);
    this.options.onPhase?.({ kind: "validation", path: drawn.path });
  }

  private stepTook(step: number): void {
    if (step > 0) this.timeLeft.stepTook((performance.now() - this.stepEndedAt) / 1000);
  }

  private took(name: string, milliseconds: number): void {
    this.timeLeft.tookBetween(name, milliseconds / 1000);
  }
}
