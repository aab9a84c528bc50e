// The runs of this tab: one trains at a time, in all tabs together; the others wait in the order in which they came.

import type { Prediction, RunAction, RunSummary, TrainSettings } from "../../../../src/studio/protocol.js";
import { findFolder, makeFolder, plainName, RUNS_FOLDER, readObject, remove, writeFile } from "../files.js";
import { runLock, TRAINING_LOCK } from "../messages.js";
import { heldLocks, RUN_FILES, type RunRecord, readRuns, runsFolder } from "../runs.js";
import { wasmMemoryBytes } from "./memory.js";
import { place } from "./place.js";
import { checkTabSettings, type TabValues } from "./tab-options.js";
import { TabRun } from "./tab-run.js";
import { prepareTraining } from "./tab-training.js";
import { findImages } from "./training-data.js";

/** Steps that a prediction measures, after one that is not counted: it compiles. */
const MEASURED_STEPS = 3;

/** Runs that take as long a step as each other agree in these. */
const PACE = [
  ...["adapter", "rank", "numExperts", "numBands", "router", "sharedDown", "targetModules", "targetPattern"],
  ...["resolution", "batchSize", "gradientAccumulation", "gradientCheckpointing", "optimizer", "device", "feclWeight"],
];

/** What the queue tells. */
export interface QueueEvents {
  onLive(runs: RunSummary[]): void;
  tell(event: { kind: "metrics" | "pictures"; run: string } | { kind: "runsChanged" }): void;
}

/** The runs that were started here. */
export class RunQueue {
  private readonly waiting: TabRun[] = [];
  /** Those that wait and the one that goes on, and such as could not be written down when they ended. */
  private shown: TabRun[] = [];
  private isWorking = false;

  constructor(
    private readonly root: FileSystemDirectoryHandle,
    private readonly events: QueueEvents,
  ) {}

  /** @throws {Error} With the first problem of the settings, or because the name is taken. */
  async start(name: string, given: TrainSettings): Promise<RunSummary> {
    const asked = checked(given);
    const data = await findImages(this.root, asked.values);
    // Something to look at, where nothing was asked for.
    const prompts = asked.values.validationPrompts ?? [data.images[0]!.caption];
    const { values, settings, command } = checked({ ...given, validationPrompts: prompts });
    const runs = await runsFolder(this.root);
    const id = name.trim() === "" ? await this.freeName(runs, values) : plainName("A run's name", name);
    if (await findFolder(runs, id)) {
      throw new Error(`There is a run "${id}" already. Choose another name, or remove that run.`);
    }
    const record: RunRecord = { state: "running", command };
    const folder = await makeFolder(runs, id);
    try {
      const content = { fera: place().version, ...settings };
      await writeFile(folder, RUN_FILES.settings, `${JSON.stringify(content, undefined, 2)}\n`);
      await writeFile(folder, RUN_FILES.record, `${JSON.stringify(record)}\n`);
    } catch (error) {
      await remove(runs, id);
      throw error;
    }
    const run = new TabRun({
      ...{ id, folder, values, data, record },
      onChange: () => this.changed(),
      tell: (kind) => this.events.tell({ kind, run: id }),
    });
    this.waiting.push(run);
    this.shown.push(run);
    this.changed();
    this.events.tell({ kind: "runsChanged" });
    void this.work();
    return run.summary;
  }

  /** @throws {Error} If there is no such run here, or this cannot be done with it. */
  async act(id: string, action: RunAction): Promise<void> {
    const run = this.shown.find(({ summary }) => summary.id === id);
    if (action === "remove") {
      if (run && this.isBusy(run)) throw new Error(`The run "${id}" is at work. Stop it first.`);
      if ((await heldLocks()).has(runLock(id))) throw new Error(`The run "${id}" is at work in another tab.`);
      await remove(await runsFolder(this.root), id);
      this.shown = this.shown.filter((each) => each !== run);
      this.changed();
      this.events.tell({ kind: "runsChanged" });
      return;
    }
    if (!run) {
      const isElsewhere = (await heldLocks()).has(runLock(id));
      throw new Error(
        isElsewhere
          ? `The run "${id}" is at work in another tab, which alone can ${action} it.`
          : `The run "${id}" is over: a tab cannot take it up again. Start a new one with the same settings.`,
      );
    }
    run.act(action);
  }

  /** From an earlier run with the same options, else from a few steps that are done for it. */
  async predict(
    given: TrainSettings,
    signal: AbortSignal,
    onProgress: (done: number, total: number) => void,
  ): Promise<Prediction> {
    const { values, settings } = checked(given);
    const drawings = values.validationPrompts === undefined ? 1 : values.validationPrompts.length;
    const drawn = Math.ceil(values.steps / (values.validateEvery ?? Math.ceil(values.steps / 4)));
    const all = (record: Partial<RunRecord>) =>
      (record.secondsBefore ?? 0) +
      values.steps * record.secondsPerStep! +
      drawn * Math.max(1, drawings) * (record.secondsPerDrawing ?? 0);
    const earlier = await this.earlierRun(settings);
    if (earlier) {
      const { secondsPerStep, peakMemoryBytes } = earlier;
      return {
        ...{ secondsPerStep: secondsPerStep!, seconds: all(earlier), basis: "an earlier run with the same options" },
        ...(peakMemoryBytes !== undefined && { peakMemoryBytes }),
      };
    }
    return navigator.locks.request(TRAINING_LOCK, { ifAvailable: true }, async (lock) => {
      if (!lock) throw new Error("A training goes on; what another takes can be measured when it has ended.");
      return this.measure(values, signal, all, onProgress);
    });
  }

  private async measure(
    values: TabValues,
    signal: AbortSignal,
    all: (record: Partial<RunRecord>) => number,
    onProgress: (done: number, total: number) => void,
  ): Promise<Prediction> {
    const startedAt = performance.now();
    const total = MEASURED_STEPS + 1;
    let first = 0;
    let last = 0;
    let steps = 0;
    const breathe = () => new Promise((resolve) => setTimeout(resolve));
    const data = await findImages(this.root, values);
    const prepared = await prepareTraining(values, data, {
      async onActivity() {
        onProgress(0, total);
        await breathe();
        signal.throwIfAborted();
      },
      async onStep({ step, seconds }) {
        if (step === 1) first = seconds!;
        last = seconds!;
        steps = step;
        onProgress(step, total);
        await breathe();
        signal.throwIfAborted();
        return step < total;
      },
    });
    try {
      await prepared.run();
    } finally {
      await prepared.release();
    }
    const secondsPerStep = steps > 1 ? (last - first) / (steps - 1) : last;
    const record = {
      secondsPerStep,
      secondsBefore: (performance.now() - startedAt) / 1000 - (last - first),
    };
    return {
      ...{ secondsPerStep, seconds: all(record), peakMemoryBytes: wasmMemoryBytes() },
      basis: `${Math.max(1, steps - 1)} steps that were run just now; pictures are not counted`,
    };
  }

  private async earlierRun(settings: TrainSettings): Promise<RunRecord | undefined> {
    const pace = (of: TrainSettings) => JSON.stringify(PACE.map((name) => of[name] ?? null));
    for (const { id } of await readRuns(this.root)) {
      const folder = await findFolder(this.root, RUNS_FOLDER, id);
      const ran = folder && (await readObject(folder, RUN_FILES.settings));
      if (!ran || pace(ran) !== pace(settings)) continue;
      const record = (await readObject(folder, RUN_FILES.record)) as RunRecord | undefined;
      if (record?.secondsPerStep !== undefined) return record;
    }
    return undefined;
  }

  private async work(): Promise<void> {
    if (this.isWorking) return;
    this.isWorking = true;
    for (let run = this.waiting.shift(); run; run = this.waiting.shift()) {
      if (!run.signal.aborted) await this.inTurn(run);
      // Its files tell the rest, unless it could not be written down.
      const ended = run;
      const record = await this.recordOf(ended.summary.id);
      if (record?.state === ended.summary.state || ended.signal.aborted) {
        this.shown = this.shown.filter((each) => each !== ended);
      }
      this.changed();
      this.events.tell({ kind: "runsChanged" });
    }
    this.isWorking = false;
  }

  /** Runs while no other tab trains. */
  private async inTurn(run: TabRun): Promise<void> {
    const isFree = await navigator.locks.request(TRAINING_LOCK, { ifAvailable: true }, async (lock) => {
      if (lock) await run.run();
      return lock !== null;
    });
    if (isFree) return;
    run.wait("waits: another tab trains");
    await navigator.locks
      .request(TRAINING_LOCK, { signal: run.signal }, () => run.run())
      .catch((error: unknown) => {
        if (!run.signal.aborted) throw error;
      });
  }

  private async recordOf(id: string): Promise<RunRecord | undefined> {
    const folder = await findFolder(this.root, RUNS_FOLDER, id);
    return folder && ((await readObject(folder, RUN_FILES.record)) as RunRecord | undefined);
  }

  private isBusy({ summary: { state } }: TabRun): boolean {
    return !["stopped", "finished", "failed"].includes(state);
  }

  private changed(): void {
    this.events.onLive(this.shown.map(({ summary }) => summary));
  }

  /** "fera-1", "fera-2", …, the first that is free. */
  private async freeName(runs: FileSystemDirectoryHandle, { adapter }: TabValues): Promise<string> {
    for (let number = 1; ; number++) {
      const name = `${adapter}-${number}`;
      if (!(await findFolder(runs, name))) return name;
    }
  }
}

/** @throws {Error} With the first problem. */
function checked(given: TrainSettings) {
  const { problems, ...checked } = checkTabSettings(given);
  if (problems[0]) throw new Error(problems[0].message);
  return checked;
}
