// Tells the pages what changes in the runs folder, by looking at it: trainings write files, those of the command line too. Node only.

import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { outputPath } from "../training/output-folder.js";
import type { EventHub } from "./event-hub.js";
import type { RunSummary } from "./protocol.js";
import { isAtWork } from "./run-states.js";
import type { Runs } from "./runs.js";

/** Between two looks. */
const LOOK_MS = 500;

/** Of so many looks one is at all runs: a folder may hold hundreds, and most of them change no more. */
const GLANCES = 20;

/** Looks while anyone listens. */
export class RunWatch {
  private timer: NodeJS.Timeout | undefined;
  private looking = false;
  private again = false;
  private told = "";
  private looks = 0;
  private busy: ReadonlySet<string> = new Set();
  private readonly metrics = new Map<string, number>();
  private readonly pictures = new Map<string, string>();

  constructor(
    private readonly runs: Runs,
    private readonly events: EventHub,
  ) {}

  start(): void {
    this.timer = setInterval(() => this.look(), LOOK_MS);
    this.timer.unref();
  }

  stop(): void {
    clearInterval(this.timer);
  }

  /** Looks now. */
  look(): void {
    if (this.looking) {
      this.again = true;
      return;
    }
    if (!this.events.hasListeners) return;
    this.looking = true;
    this.tell()
      // What cannot be read now is read next time, or its request says why not.
      .catch(() => undefined)
      .finally(() => {
        this.looking = false;
        if (!this.again) return;
        this.again = false;
        this.look();
      });
  }

  private async tell(): Promise<void> {
    const isGlance = this.looks++ % GLANCES !== 0;
    const runs = await this.runs.list(isGlance);
    const text = JSON.stringify(runs);
    if (text !== this.told) this.events.emit({ kind: "runs", runs });
    this.told = text;
    const wasBusy = this.busy;
    this.busy = new Set(runs.filter(({ state }) => isAtWork(state)).map(({ id }) => id));
    // The last pictures of a run come as it ends.
    const isOfInterest = ({ id }: RunSummary) => this.busy.has(id) || wasBusy.has(id) || !this.metrics.has(id);
    await Promise.all(runs.filter((run) => !isGlance || isOfInterest(run)).map((run) => this.tellFiles(run)));
  }

  private async tellFiles({ id }: RunSummary): Promise<void> {
    const folder = join(this.runs.folder, id);
    const { size } = (await stat(outputPath(folder, "metrics")).catch(() => undefined)) ?? { size: 0 };
    const before = this.metrics.get(id);
    this.metrics.set(id, size);
    if (before !== undefined && before !== size) this.events.emit({ kind: "metrics", run: id });
    const validation = outputPath(folder, "validation");
    const names = await readdir(validation).catch(() => [] as string[]);
    const times = await Promise.all(
      [validation, ...names.map((name) => join(validation, name))].map((path) =>
        stat(path).then(
          ({ mtimeMs }) => mtimeMs,
          () => 0,
        ),
      ),
    );
    const stamp = times.join(",");
    const earlier = this.pictures.get(id);
    this.pictures.set(id, stamp);
    if (earlier !== undefined && earlier !== stamp) this.events.emit({ kind: "pictures", run: id });
  }
}
