// Draws pictures in a process of its own, one request after the other, and keeps them with their settings. Node only.

import { type ChildProcess, fork } from "node:child_process";
import { randomBytes, randomInt } from "node:crypto";
import { readdir, stat, unlink } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { makeFolder } from "../storage/file-access.js";
import { pathInside } from "./chosen-folders.js";
import { checkedRequest, drawCells } from "./draw-cells.js";
import type { DrawJob, DrawOrder, DrawReport } from "./draw-messages.js";
import type { EventHub } from "./event-hub.js";
import { STUDIO_FOLDER } from "./run-records.js";

/** A process that has nothing to draw gives its memory back after so long. */
const IDLE_MS = 300_000;

/** Pictures on the disk; the oldest go when more are drawn. */
export const MOST_KEPT = 2000;

/** Settings of {@link Drawings}. */
export interface DrawingsOptions {
  runs: string;
  events: EventHub;
  samplers: readonly string[];
  /** As `loadPipeline` takes it. @throws {StudioError} If it was not chosen. */
  modelOf(id: string): Promise<string>;
  /** Its path, and what the page calls it. @throws {StudioError} If it was not chosen. */
  adapterOf(id: string): Promise<{ path: string; label: string }>;
  /** Whether a training is at work: drawing then gives its memory back at once. */
  isTraining(): Promise<boolean>;
}

/** The drawings of a studio. */
export class Drawings {
  private readonly folder: string;
  private readonly waiting: DrawJob[] = [];
  private current: DrawJob | undefined;
  private child: ChildProcess | undefined;
  private idle: NodeJS.Timeout | undefined;
  /** Whether a training was at work when the job began. */
  private isSlow = false;
  private isClosed = false;

  constructor(private readonly options: DrawingsOptions) {
    this.folder = join(resolve(options.runs), STUDIO_FOLDER, "drawings");
  }

  /** Draws as soon as what was asked for before is done. @returns The job, which its events name. */
  async draw(request: unknown): Promise<string> {
    const { samplers, modelOf, adapterOf, events } = this.options;
    const wanted = checkedRequest(request, samplers);
    const cells = drawCells(wanted, randomInt(2 ** 32), samplers);
    const model = await modelOf(wanted.model);
    const adapters = new Map(
      await Promise.all(wanted.adapters.map(async ({ id }) => [id, await adapterOf(id)] as const)),
    );
    await makeFolder(this.folder);
    await forgetOldest(this.folder, MOST_KEPT - cells.length);
    const job: DrawJob = {
      job: randomBytes(6).toString("hex"),
      ...{ model, folder: this.folder, modelName: basename(model) },
      labels: Object.fromEntries([...adapters.values()].map(({ path, label }) => [path, label])),
      cells: cells.map((cell) => ({
        ...cell,
        adapters: cell.adapters.map(({ id, scale }) => ({ id: adapters.get(id)!.path, scale })),
      })),
    };
    this.waiting.push(job);
    if (this.current) {
      const total = job.cells.reduce((sum, { steps }) => sum + steps, 0);
      events.emit({ kind: "drawing", job: job.job, done: 0, total, activity: "waiting for the drawing before" });
    }
    // The page must know the job before its events come.
    setImmediate(() => this.next());
    return job.job;
  }

  /** Ends a job, or takes it out of the queue; one that has ended is no matter. */
  cancel(job: string): void {
    const place = this.waiting.findIndex((each) => each.job === job);
    if (place >= 0) {
      this.waiting.splice(place, 1);
      this.options.events.emit({ kind: "drawingEnded", job });
    } else if (this.current?.job === job) this.send({ kind: "cancel", job });
  }

  /** The path of a picture. @throws {StudioError} If there is none of that name. */
  file(id: string): Promise<string> {
    return pathInside(this.folder, basename(id) === id ? id : `../${id}`);
  }

  /** Gives memory back where nothing is drawn now. */
  async release(): Promise<void> {
    if (!this.current) await this.end();
  }

  async close(): Promise<void> {
    this.isClosed = true;
    await this.end();
  }

  private next(): void {
    if (this.current || this.isClosed) return;
    const job = this.waiting.shift();
    if (!job) {
      void this.rest();
      return;
    }
    clearTimeout(this.idle);
    this.current = job;
    this.isSlow = false;
    void this.options.isTraining().then(
      (isTraining) => {
        this.isSlow = isTraining;
      },
      () => undefined,
    );
    this.send({ kind: "draw", job });
  }

  private async rest(): Promise<void> {
    const isTraining = await this.options.isTraining().catch(() => false);
    if (this.current) return;
    clearTimeout(this.idle);
    this.idle = setTimeout(() => void this.release(), isTraining ? 0 : IDLE_MS);
    this.idle.unref();
  }

  private send(order: DrawOrder): void {
    this.child ??= this.start();
    // One that is gone takes no order; its exit tells.
    this.child.send(order, () => undefined);
  }

  private start(): ChildProcess {
    const child = fork(fileURLToPath(new URL("draw-process.js", import.meta.url)), { serialization: "advanced" });
    child.on("message", (report: DrawReport) => this.hear(report));
    const gone = () => {
      if (this.child === child) this.child = undefined;
      const { current } = this;
      if (!current || this.isClosed) return;
      this.hear({
        kind: "ended",
        job: current.job,
        error:
          "Drawing ended unexpectedly. Perhaps the machine has no memory left: try a smaller size, or wait for the training.",
      });
    };
    child.on("exit", gone);
    // Without a number it was never there, and has no exit.
    child.on("error", () => child.pid === undefined && gone());
    return child;
  }

  private hear(report: DrawReport): void {
    const { events } = this.options;
    if (report.kind === "drawing" && this.isSlow) {
      events.emit({ ...report, activity: `${report.activity}, slower beside the training` });
      return;
    }
    if (report.kind !== "ended") {
      events.emit(report);
      return;
    }
    const { job, error } = report;
    if (this.current?.job === job) this.current = undefined;
    events.emit({ kind: "drawingEnded", job, ...(error !== undefined && { error }) });
    this.next();
  }

  private async end(): Promise<void> {
    clearTimeout(this.idle);
    const { child } = this;
    this.child = undefined;
    if (child?.pid === undefined) return;
    const ended = new Promise((done) => child.once("exit", done));
    child.kill("SIGKILL");
    await ended;
  }
}

/** Deletes pictures, the oldest first, until there are `most` at most. */
export async function forgetOldest(folder: string, most: number): Promise<void> {
  const names = (await readdir(folder)).filter((name) => name.endsWith(".png"));
  if (names.length <= most) return;
  const aged = await Promise.all(
    names.map(async (name) => {
      const path = join(folder, name);
      const { mtimeMs = 0 } = (await stat(path).catch(() => undefined)) ?? {};
      return { path, mtimeMs };
    }),
  );
  aged.sort((a, b) => a.mtimeMs - b.mtimeMs);
  // Another studio may have been faster.
  for (const { path } of aged.slice(0, names.length - Math.max(0, most))) await unlink(path).catch(() => undefined);
}
