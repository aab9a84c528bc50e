// The runs of a folder: those that the studio starts, and those that the command line did. Node only.

import { readdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { outputPath } from "../training/output-folder.js";
import { pathInside } from "./chosen-folders.js";
import { metricsPart } from "./metrics-part.js";
import type { Models } from "./model-choices.js";
import type { MeasuredRun } from "./predictions.js";
import type { AdapterChoice, MetricsPart, RunDetails, RunSummary } from "./protocol.js";
import { type RunFiles, RunFolders, readPictures } from "./run-folder.js";
import { checkedRunId, runFolder } from "./run-id.js";
import type { RunQueue } from "./run-queue.js";
import type { RunRecord } from "./run-records.js";
import { isAtWork } from "./run-states.js";
import { StudioError } from "./studio-error.js";
import { commandOf } from "./training-settings.js";

/** Looks at runs; {@link RunQueue} starts and ends them. */
export class Runs {
  readonly folder: string;
  private readonly folders = new RunFolders();

  constructor(
    folder: string,
    private readonly queue: RunQueue,
    private readonly models: Models,
  ) {
    this.folder = resolve(folder);
  }

  /**
   * Queued ones first, in their order, then the newest first.
   *
   * @param isGlance - Whether runs at which nobody is at work are taken as they were seen last.
   */
  async list(isGlance = false): Promise<RunSummary[]> {
    const entries = await readdir(this.folder, { withFileTypes: true }).catch(() => []);
    const found = entries.filter((entry) => entry.isDirectory() && !entry.name.startsWith(".")).map(({ name }) => name);
    const names = new Set([...found, ...this.queue.records.map(({ id }) => id)]);
    const all = await Promise.all([...names].map((id) => this.summary(id, isGlance)));
    const runs = all.filter((run) => run !== undefined);
    const isQueued = ({ state }: RunSummary) => Number(state === "queued");
    return runs.sort(
      (a, b) =>
        isQueued(b) - isQueued(a) || (a.state === "queued" ? a.changedAt - b.changedAt : b.changedAt - a.changedAt),
    );
  }

  /** Undefined where there is no run of that name. */
  private async summary(id: string, isGlance = false): Promise<RunSummary | undefined> {
    const folder = join(this.folder, id);
    const record = this.queue.record(id);
    const mayRest = isGlance && !(record && isAtWork(record.state));
    const files = (mayRest && this.folders.resting(folder)) || (await this.folders.read(folder));
    if (!files && !record) return undefined;
    return summaryOf(id, files, record, {
      modelId: (path) => this.models.idOf(path),
      activity: record && !files?.last ? await this.queue.activity(id) : undefined,
    });
  }

  async details(id: string): Promise<RunDetails> {
    const folder = await runFolder(this.folder, id);
    const summary = await this.summary(id);
    if (!summary) throw noSuchRun(id);
    const files = await this.folders.read(folder);
    const asked = this.queue.record(id)?.config ?? {};
    const config = files?.settings ?? asked;
    return {
      ...summary,
      settings: { ...config, model: summary.model },
      command: commandOf(Object.keys(asked).length > 0 ? asked : config, folder),
      pictures: await readPictures(folder),
      ...(files?.adapterFile !== undefined && {
        adapterFile: files.adapterFile,
        adapterId: join(folder, files.adapterFile),
      }),
    };
  }

  async metrics(id: string, from: number): Promise<MetricsPart> {
    // A run that waits has no folder yet.
    if (this.queue.record(checkedRunId(id)) === undefined) await pathInside(this.folder, id);
    return metricsPart(outputPath(join(this.folder, id), "metrics"), from);
  }

  /** The path of a file of a run. @throws {StudioError} If it lies elsewhere. */
  async file(id: string, name: string): Promise<string> {
    return pathInside(await pathInside(this.folder, checkedRunId(id)), name);
  }

  /** The adapters that runs have made, the newest first. */
  async adapters(): Promise<AdapterChoice[]> {
    const runs = await this.list();
    const all = await Promise.all(
      runs.map(async ({ id, model }) => {
        const folder = join(this.folder, id);
        const file = (await this.folders.read(folder))?.adapterFile;
        return file === undefined ? undefined : { id: join(folder, file), label: `${id}/${file}`, run: id, model };
      }),
    );
    return all.filter((adapter) => adapter !== undefined);
  }

  /** Runs that have made steps, the newest first. */
  async measured(): Promise<MeasuredRun[]> {
    const all = await Promise.all(
      (await this.list()).map(async ({ id }) => {
        const folder = join(this.folder, id);
        const files = await this.folders.read(folder);
        return files?.last && { id, settings: files.settings, metrics: outputPath(folder, "metrics") };
      }),
    );
    return all.filter((run) => run !== undefined);
  }

  /** Whether a training is at work in the folder, one of the command line too. */
  async isTraining(): Promise<boolean> {
    return (await this.list()).some(({ state }) => isAtWork(state));
  }
}

const noSuchRun = (id: string): StudioError => new StudioError(404, `There is no run ${JSON.stringify(id)}.`);

function summaryOf(
  id: string,
  files: RunFiles | undefined,
  record: RunRecord | undefined,
  { modelId, activity }: { modelId: (path: string) => string; activity: string | undefined },
): RunSummary {
  const settings = files?.settings ?? record!.config;
  const { last, trainer } = files ?? {};
  const steps = numberOf(settings.steps) ?? last?.steps ?? 0;
  const step = last?.step ?? 0;
  const state = stateOf(files, record, step >= steps && files?.adapterFile !== undefined);
  const isBusy = isAtWork(state);
  return {
    id,
    state,
    step,
    steps,
    ...(last?.loss !== undefined && { loss: last.loss }),
    ...(last?.stepsPerSecond !== undefined && { stepsPerSecond: last.stepsPerSecond }),
    ...(trainer && last?.stepsPerSecond && { secondsLeft: (steps - step) / last.stepsPerSecond }),
    ...(last?.peakMemoryBytes !== undefined && { peakMemoryBytes: last.peakMemoryBytes }),
    ...(activity !== undefined && isBusy && { activity }),
    ...(record?.error !== undefined && { error: record.error }),
    model: modelId(String(settings.model ?? "")),
    adapterKind: String(settings.adapter ?? "fera"),
    changedAt: Math.max(files?.changedAt ?? 0, record?.changedAt ?? 0),
    canResume: !isBusy && state !== "queued" && state !== "finished" && (record !== undefined || files!.hasCheckpoint),
    isOurs: record !== undefined,
  };
}

function stateOf(files: RunFiles | undefined, record: RunRecord | undefined, isComplete: boolean): RunSummary["state"] {
  if (record && record.state !== "running") return record.state;
  if (files?.trainer || record) return files?.last ? "running" : "starting";
  return isComplete ? "finished" : "stopped";
}

const numberOf = (value: unknown): number | undefined => (typeof value === "number" ? value : undefined);
