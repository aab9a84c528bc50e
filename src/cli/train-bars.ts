// What a training shows while it runs: what it is doing, from the first second on, and how long it still takes.

import { type FineTunePhase, type StepReport, smoother } from "../training/index.js";
import { counted } from "./format.js";
import { describeMemory } from "./memory-lines.js";
import { printError } from "./printable.js";
import { Progress } from "./progress.js";

/** What is done sooner needs no bar. */
const QUIET_MS = 500;
const MEGABYTE = 1e6;

/** Bars and lines on stderr. */
export class TrainBars {
  private bar: Progress | undefined;
  private label: string | undefined;
  private done: number | undefined;
  /** Stays through what is done between steps: it counts the time of the whole training. */
  private training: Progress | undefined;
  /** What is shown only if it lasts, and since when it has been done. */
  private quietLabel: string | undefined;
  private quietSince = 0;
  private readonly smooth = smoother();
  /** Whether a step has been done. */
  stepping = false;

  constructor(private readonly steps: number) {}

  phase(phase: FineTunePhase): void {
    switch (phase.kind) {
      case "hashing": {
        const total = Math.round(phase.of / MEGABYTE);
        this.quietly({ label: "checking the weights", total, unit: "MB" }, Math.floor(phase.done / MEGABYTE));
        break;
      }
      case "encoding":
        this.show({ label: `encoding ${phase.what}`, total: phase.of, unit: phase.what }, phase.done);
        break;
      case "planned":
        this.end();
        for (const line of describeMemory(phase.plan)) printError(line);
        break;
      case "compiling":
        this.end();
        printError("compiling the training step");
        break;
      case "resumed":
        this.end();
        printError(phase.step > 0 ? `resuming after step ${phase.step}` : "nothing to resume; starting anew");
        break;
      case "drawing":
        if (this.stepping) break;
        this.end();
        printError(`drawing   ${counted(phase.images, "picture")} without the adapter`);
        break;
      case "validating":
        this.quietly({ label: "validating", total: phase.of, unit: "predictions" }, phase.done);
        break;
      case "validated":
        this.say(`validated step ${phase.step}: loss ${phase.report.loss.toFixed(5)}`);
        break;
      case "validation":
        this.say(`drawn     ${phase.path}`);
        break;
      case "checkpoint":
      case "starting":
    }
  }

  step({ step, loss }: StepReport, secondsLeft: number | undefined): void {
    this.stepping = true;
    this.quietLabel = undefined;
    if (!this.training || this.bar !== this.training) {
      this.end();
      this.training ??= new Progress({ label: "training", total: this.steps, unit: "steps" });
      this.bar = this.training;
    }
    this.bar.update(step, `loss ${this.smooth(loss).toFixed(4)}`, secondsLeft);
  }

  end(): void {
    this.bar?.end();
    this.bar = undefined;
    this.label = undefined;
  }

  private say(line: string): void {
    if (this.bar) this.bar.say(line);
    else printError(line);
  }

  /** Shows nothing of what is over soon. */
  private quietly(options: { label: string; total: number; unit: string }, done: number): void {
    if (this.quietLabel !== options.label || done === 0) {
      this.quietLabel = options.label;
      this.quietSince = performance.now();
    }
    if (performance.now() - this.quietSince < QUIET_MS) return;
    this.show(options, done);
  }

  private show(options: { label: string; total: number; unit: string }, done: number): void {
    if (this.label !== options.label) {
      this.end();
      this.label = options.label;
      this.done = undefined;
      this.bar = new Progress(options);
    }
    // Small files end within one unit: their last line once, not with every piece.
    if (this.done === done) return;
    this.done = done;
    this.bar!.update(done);
  }
}
