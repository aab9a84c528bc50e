// A run at work: trains, and keeps its files. It ends as finished, stopped or failed, and its folder tells which.

import type { RunSummary } from "../../../../src/studio/protocol.js";
import type { MetricsLine } from "../../../../src/training/report/metrics-file.js";
import { TimeLeft } from "../../../../src/training/report/time-left.js";
import { appendText, writeFile } from "../files.js";
import { runLock } from "../messages.js";
import { RUN_FILES, type RunRecord } from "../runs.js";
import { wasmMemoryBytes } from "./memory.js";
import { SamplePictures } from "./sample-pictures.js";
import type { TabValues } from "./tab-options.js";
import { type PreparedTraining, prepareTraining } from "./tab-training.js";
import type { findImages } from "./training-data.js";

/** Milliseconds between two writings of metrics. */
const METRICS_EVERY = 1000;

/** What a run is made of. */
export interface TabRunParts {
  id: string;
  folder: FileSystemDirectoryHandle;
  values: TabValues;
  data: Awaited<ReturnType<typeof findImages>>;
  /** As it was written. */
  record: RunRecord;
  /** The run's summary is another one. */
  onChange(): void;
  /** Told to all tabs. */
  tell(kind: "metrics" | "pictures"): void;
}

/** One run of this tab, from its place in the queue to its end. */
export class TabRun {
  summary: RunSummary;
  private readonly stopping = new AbortController();
  /** Resolved when a paused run may go on. */
  private pause: { ended: Promise<void>; end(): void } | undefined;
  private lines = "";
  private writtenAt = 0;

  constructor(private readonly parts: TabRunParts) {
    const { id, values } = parts;
    this.summary = {
      ...{ id, state: "queued", step: 0, steps: values.steps, model: values.model, adapterKind: values.adapter },
      ...{ changedAt: Date.now(), canResume: false, isOurs: true },
    };
  }

  /** Fires when the run is to end. */
  get signal(): AbortSignal {
    return this.stopping.signal;
  }

  act(action: "pause" | "resume" | "stop"): void {
    const { state } = this.summary;
    if (action === "pause" && state === "running" && !this.pause) {
      let end = () => {};
      const ended = new Promise<void>((resolve) => {
        end = resolve;
      });
      this.pause = { ended, end };
      this.change({ activity: "pausing after this step" });
    }
    if (action === "resume") this.pause?.end();
    if (action === "stop") {
      this.change({ state: state === "queued" ? "stopped" : "stopping", activity: undefined });
      this.stopping.abort(new DOMException("The training was stopped.", "AbortError"));
      this.pause?.end();
    }
  }

  /** What the run waits for. */
  wait(activity: string): void {
    this.change({ activity });
  }

  /** Trains to the end; never rejects: what went wrong is in the summary. */
  async run(): Promise<void> {
    await navigator.locks.request(runLock(this.parts.id), async () => {
      try {
        await this.keepRecord();
        await this.train();
        this.record.state = this.summary.step === this.summary.steps ? "finished" : "stopped";
      } catch (error) {
        if (this.signal.aborted) this.record.state = "stopped";
        else Object.assign(this.record, { state: "failed", error: inWords(error as Error) });
      }
      await this.writeMetrics().catch(() => undefined);
      // Where even this cannot be written, the summary tells it as long as the tab is open.
      await this.keepRecord().catch(() => undefined);
    });
    const { state, error } = this.record;
    const ended = { state, ...(error !== undefined && { error }) };
    this.change({ ...ended, activity: undefined, secondsLeft: undefined, changedAt: Date.now() });
  }

  private get record(): RunRecord {
    return this.parts.record;
  }

  private async train(): Promise<void> {
    const { values, data, folder } = this.parts;
    this.change({ state: "starting" });
    const startedAt = performance.now();
    let pictures: SamplePictures | undefined;
    let timeLeft: TimeLeft | undefined;
    let stepEndedAt = 0;
    const prepared = await prepareTraining(values, data, {
      onActivity: (activity) => this.go(activity),
      onStep: async (line) => {
        timeLeft?.stepTook((performance.now() - stepEndedAt) / 1000);
        await this.afterStep(line, timeLeft?.after(line.step));
        if (pictures?.isDue(line.step)) {
          const drawingAt = performance.now();
          await this.drawAndSave(pictures, prepared, line.step);
          this.record.secondsPerDrawing = (performance.now() - drawingAt) / 1000;
          timeLeft?.tookBetween("drawing", this.record.secondsPerDrawing);
        }
        await this.whilePaused();
        await breathe();
        stepEndedAt = performance.now();
        return !this.signal.aborted;
      },
    });
    try {
      pictures = new SamplePictures(prepared.pipeline, folder, values, this.signal);
      timeLeft = new TimeLeft(values.steps, { drawing: { every: pictures.every, atEnd: true } });
      if (pictures.count > 0) {
        await this.go("drawing without the adapter");
        const drawingAt = performance.now();
        await pictures.drawWithout();
        timeLeft.tookBetween("drawing", (performance.now() - drawingAt) / 1000);
        this.parts.tell("pictures");
      }
      this.record.secondsBefore = (performance.now() - startedAt) / 1000;
      this.change({ state: "running", activity: undefined });
      stepEndedAt = performance.now();
      await prepared.run();
      // Where it was stopped between two drawings, it is newer than the file.
      await this.saveAdapter(prepared);
    } finally {
      await prepared.release();
    }
  }

  private async afterStep(line: MetricsLine, secondsLeft: number | undefined): Promise<void> {
    const peakMemoryBytes = wasmMemoryBytes();
    const { step, loss, stepsPerSecond } = line;
    Object.assign(this.record, { peakMemoryBytes, secondsPerStep: 1 / stepsPerSecond! });
    this.lines += `${JSON.stringify(line)}\n`;
    if (performance.now() - this.writtenAt >= METRICS_EVERY) await this.writeMetrics();
    this.change({
      ...{ step, loss, stepsPerSecond, secondsLeft, peakMemoryBytes, changedAt: Date.now() },
      ...(!this.pause && { activity: undefined }),
    });
  }

  private async drawAndSave(pictures: SamplePictures, prepared: PreparedTraining, step: number): Promise<void> {
    await this.writeMetrics();
    this.change({ activity: "drawing" });
    // The adapter first: what is drawn can be drawn again.
    await this.saveAdapter(prepared);
    await pictures.draw(step, prepared.saved).catch((error: unknown) => {
      if (!this.signal.aborted) throw error;
    });
    this.change({ activity: undefined });
    this.parts.tell("pictures");
  }

  private async saveAdapter({ saved }: PreparedTraining): Promise<void> {
    await writeFile(this.parts.folder, RUN_FILES.adapter, saved.current().toSafetensors());
    await this.keepRecord();
  }

  private async writeMetrics(): Promise<void> {
    if (this.lines === "") return;
    const { lines } = this;
    this.lines = "";
    this.writtenAt = performance.now();
    await appendText(this.parts.folder, RUN_FILES.metrics, lines);
    this.parts.tell("metrics");
  }

  private async whilePaused(): Promise<void> {
    if (!this.pause || this.signal.aborted) return;
    await this.writeMetrics();
    this.change({ state: "paused", activity: undefined, canResume: true });
    await this.pause.ended;
    this.pause = undefined;
    this.change({ canResume: false });
    if (!this.signal.aborted) this.change({ state: "running" });
  }

  /** @throws The signal's reason where the run is to end. */
  private async go(activity: string): Promise<void> {
    this.change({ activity });
    await breathe();
    this.signal.throwIfAborted();
  }

  private keepRecord(): Promise<void> {
    return writeFile(this.parts.folder, RUN_FILES.record, `${JSON.stringify(this.record)}\n`);
  }

  private change(part: { [K in keyof RunSummary]?: RunSummary[K] | undefined }): void {
    const next = { ...this.summary, ...part };
    // What is undefined is left out: it is told to the page as JSON.
    this.summary = Object.fromEntries(
      Object.entries(next).filter(([, value]) => value !== undefined),
    ) as unknown as RunSummary;
    this.parts.onChange();
  }
}

/** Lets messages of the page in: computing leaves the worker no time for them. */
const breathe = (): Promise<void> => new Promise((resolve) => setTimeout(resolve));

/** What went wrong, and what to do where the message does not say it. */
function inWords({ message }: Error): string {
  if (/out of memory|allocat|std::bad_alloc|device (was )?lost|OrtRun.*memory/i.test(message)) {
    return `${message} There is too little memory for this: choose a smaller resolution or batchSize, or turn gradientCheckpointing on.`;
  }
  return message;
}
