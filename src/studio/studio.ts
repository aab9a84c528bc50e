// What stands behind the page, without HTTP: data sets, options, runs, drawings, and what happens with them. Node only.

import { availableParallelism, totalmem } from "node:os";
import { basename, join, resolve } from "node:path";
import { ChosenFolders } from "./chosen-folders.js";
import { DataSets } from "./data-sets.js";
import { Drawings } from "./drawings.js";
import { calmly, EventHub } from "./event-hub.js";
import { ImageFiles } from "./image-files.js";
import { Models } from "./model-choices.js";
import { describeOptions } from "./option-descriptions.js";
import { Predictions } from "./predictions.js";
import type {
  CheckedSettings,
  OptionDescription,
  Prediction,
  RunAction,
  RunSummary,
  StudioState,
  TrainSettings,
} from "./protocol.js";
import { RunQueue, type RunQueueOptions } from "./run-queue.js";
import { RunWatch } from "./run-watch.js";
import { Runs } from "./runs.js";
import { StudioError } from "./studio-error.js";
import { type ResolvedSettings, TrainingSettings } from "./training-settings.js";

/** What the studio is started with. */
export interface StudioOptions extends Pick<RunQueueOptions, "program" | "clearRun"> {
  version: string;
  /** Places of data: folders, Parquet files, `icons:STYLE`. */
  data: readonly string[];
  /** The folder of the runs. */
  runs: string;
  /** As `--model` takes them. */
  models: readonly string[];
  /** The model that comes with the library. */
  embeddedModel: string;
  /** Names of samplers, for drawing. */
  samplers: readonly string[];
}

/** Between two words that data sets have changed: every page asks anew what there is. */
const CHANGES_MS = 500;

/** One studio. */
export class Studio {
  readonly events = new EventHub();
  readonly dataSets: DataSets;
  readonly imageFiles: ImageFiles;
  readonly runs: Runs;
  readonly models: Models;
  readonly drawings: Drawings;
  private readonly queue: RunQueue;
  private readonly watch: RunWatch;
  private readonly trainingSettings: TrainingSettings;
  private readonly predictions: Predictions;

  constructor(private readonly settings: StudioOptions) {
    const { data, runs, models, embeddedModel, program, clearRun } = settings;
    const folders = new ChosenFolders([...data, runs]);
    this.models = new Models(embeddedModel, models);
    this.queue = new RunQueue({
      ...{ runs, program, clearRun },
      onChange: () => this.watch.look(),
      // What was kept for drawing is better used by the training.
      beforeStart: () => this.drawings.release(),
    });
    this.runs = new Runs(runs, this.queue, this.models);
    this.watch = new RunWatch(this.runs, this.events);
    const newSets = newSetsFolder(data, runs);
    const onChange = calmly(() => this.events.emit({ kind: "dataSets" }), CHANGES_MS);
    this.dataSets = new DataSets({ places: data, newSets, folders, onChange });
    this.imageFiles = new ImageFiles({ dataSets: this.dataSets, newSets, onChange });
    this.drawings = new Drawings({
      ...{ runs, events: this.events, samplers: settings.samplers },
      modelOf: (id) => this.models.chosenPath(id),
      adapterOf: async (id) => {
        const known = (await this.runs.adapters()).find((adapter) => adapter.id === id);
        return { path: await folders.check(id), label: known?.label ?? basename(id) };
      },
      isTraining: () => this.runs.isTraining(),
    });
    this.trainingSettings = new TrainingSettings(this.models, this.dataSets);
    this.predictions = new Predictions({
      program,
      runs: () => this.runs.measured(),
      isTraining: () => this.runs.isTraining(),
      emit: (event) => this.events.emit(event),
    });
  }

  /** Finds earlier runs again, and goes on with the queue. */
  async open(): Promise<void> {
    await this.queue.open();
    this.watch.start();
  }

  /** Ends trainings well; they are then paused. */
  async close(): Promise<void> {
    this.predictions.close();
    await this.queue.close();
    this.watch.stop();
    await this.drawings.close();
  }

  async state(): Promise<StudioState> {
    return {
      version: this.settings.version,
      kind: "server",
      machine: { cores: availableParallelism(), memoryBytes: totalmem() },
      device: "cpu",
      models: await this.models.list(),
      dataSets: await this.dataSets.list(),
      runsFolder: this.settings.runs,
    };
  }

  options(): OptionDescription[] {
    return describeOptions();
  }

  async check(settings: TrainSettings): Promise<CheckedSettings> {
    const { problems, command, settings: whole } = await this.trainingSettings.resolve(settings);
    return { problems, command, settings: whole };
  }

  /** What a training will take. @param signal - Ends the steps that are run for it. */
  async predict(settings: TrainSettings, signal: AbortSignal): Promise<Prediction> {
    const { config, settings: whole } = await this.resolved(settings);
    return this.predictions.predict(config, whole, signal);
  }

  /** Puts a training into the queue. @throws {StudioError} If an option is wrong. */
  async start(name: string, settings: TrainSettings): Promise<RunSummary> {
    const { config } = await this.resolved(settings);
    const id = await this.queue.add(name, config);
    return (await this.runs.list()).find((run) => run.id === id)!;
  }

  private async resolved(settings: TrainSettings): Promise<ResolvedSettings> {
    const resolved = await this.trainingSettings.resolve(settings);
    const { problems } = resolved;
    if (problems.length > 0) throw new StudioError(400, problems.map(({ message }) => message).join("\n"));
    return resolved;
  }

  async act(run: string, action: RunAction): Promise<void> {
    await this.queue.act(run, action);
  }

  samplers(): readonly string[] {
    return this.settings.samplers;
  }
}

/** Where uploaded data sets go: the first chosen folder, else beside the runs. */
function newSetsFolder(data: readonly string[], runs: string): string {
  const folder = data.find((place) => !place.startsWith("icons:") && !place.toLowerCase().endsWith(".parquet"));
  return resolve(folder ?? join(runs, "data"));
}
