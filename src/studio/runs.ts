// The runs of a folder: those that the studio starts, and those that the command line did. Node only.

import { readdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { outputPath } from "../training/output-folder.js";
import { pathInside } from "./chosen-folders.js";
import { metricsPart } from "./metrics-part.js";
import type { AdapterChoice, MetricsPart, RunDetails, RunState, RunSummary } from "./protocol.js";
import { type RunFiles, readPictures, readRunFiles } from "./run-folder.js";
import { StudioError } from "./studio-error.js";

/** Looks at runs. */
export class Runs {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = resolve(folder);
  }

  async list(): Promise<RunSummary[]> {
    const entries = await readdir(this.folder, { withFileTypes: true }).catch(() => []);
    const names = entries.filter((entry) => entry.isDirectory() && !entry.name.startsWith(".")).map(({ name }) => name);
    const all = await Promise.all(
      names.map(async (name) => {
        const files = await readRunFiles(join(this.folder, name));
        return files && summaryOf(name, files);
      }),
    );
    return all.filter((run) => run !== undefined).sort((a, b) => b.changedAt - a.changedAt);
  }

  async details(id: string): Promise<RunDetails> {
    const folder = await this.folderOf(id);
    const files = await readRunFiles(folder);
    if (!files) throw noSuchRun(id);
    return {
      ...summaryOf(id, files),
      settings: files.settings,
      command: "",
      pictures: await readPictures(folder),
      ...(files.adapterFile !== undefined && {
        adapterFile: files.adapterFile,
        adapterId: join(folder, files.adapterFile),
      }),
    };
  }

  async metrics(id: string, from: number): Promise<MetricsPart> {
    return metricsPart(outputPath(await this.folderOf(id), "metrics"), from);
  }

  /** The path of a file of a run. @throws {StudioError} If it lies elsewhere. */
  async file(id: string, name: string): Promise<string> {
    return pathInside(await this.folderOf(id), name);
  }

  /** The adapters that runs have made, the newest first. */
  async adapters(): Promise<AdapterChoice[]> {
    const runs = await this.list();
    const all = await Promise.all(
      runs.map(async ({ id, model }) => {
        const folder = join(this.folder, id);
        const file = (await readRunFiles(folder))?.adapterFile;
        return file === undefined ? undefined : { id: join(folder, file), label: `${id}/${file}`, run: id, model };
      }),
    );
    return all.filter((adapter) => adapter !== undefined);
  }

  protected async folderOf(id: string): Promise<string> {
    if (/[/\\]/.test(id)) throw new StudioError(403, `${JSON.stringify(id)} is no name of a run.`);
    return pathInside(this.folder, id);
  }
}

const noSuchRun = (id: string): StudioError => new StudioError(404, `There is no run ${JSON.stringify(id)}.`);

function summaryOf(id: string, files: RunFiles): RunSummary {
  const { settings, last, trainer, hasCheckpoint, adapterFile, changedAt } = files;
  const steps = numberOf(settings.steps) ?? last?.steps ?? 0;
  const step = last?.step ?? 0;
  const state = stateOf(files, step >= steps && adapterFile !== undefined);
  return {
    id,
    state,
    step,
    steps,
    ...(last?.loss !== undefined && { loss: last.loss }),
    ...(last?.stepsPerSecond !== undefined && { stepsPerSecond: last.stepsPerSecond }),
    ...(trainer && last?.stepsPerSecond && { secondsLeft: (steps - step) / last.stepsPerSecond }),
    model: String(settings.model ?? ""),
    adapterKind: String(settings.adapter ?? ""),
    changedAt,
    canResume: !trainer && hasCheckpoint && state !== "finished",
    isOurs: false,
  };
}

function stateOf({ trainer, last }: RunFiles, isComplete: boolean): RunState {
  if (trainer) return last ? "running" : "starting";
  return isComplete ? "finished" : "stopped";
}

const numberOf = (value: unknown): number | undefined => (typeof value === "number" ? value : undefined);
