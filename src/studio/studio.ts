// What stands behind the page, without HTTP: data sets, options, runs, drawings, and what happens with them. Node only.

import { availableParallelism, totalmem } from "node:os";
import { join, resolve } from "node:path";
import { ChosenFolders } from "./chosen-folders.js";
import { DataSets } from "./data-sets.js";
import { EventHub } from "./event-hub.js";
import { Models } from "./model-choices.js";
import { describeOptions } from "./option-descriptions.js";
import type { OptionDescription, StudioState } from "./protocol.js";
import { Runs } from "./runs.js";

/** What the studio is started with. */
export interface StudioOptions {
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

/** One studio. */
export class Studio {
  readonly events = new EventHub();
  readonly dataSets: DataSets;
  readonly runs: Runs;
  readonly models: Models;

  constructor(private readonly settings: StudioOptions) {
    const { data, runs, models, embeddedModel } = settings;
    const folders = new ChosenFolders([...data, runs]);
    this.models = new Models(embeddedModel, models);
    this.runs = new Runs(runs);
    this.dataSets = new DataSets({ places: data, newSets: newSetsFolder(data, runs), folders });
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

  samplers(): readonly string[] {
    return this.settings.samplers;
  }
}

/** Where uploaded data sets go: the first chosen folder, else beside the runs. */
function newSetsFolder(data: readonly string[], runs: string): string {
  const folder = data.find((place) => !place.startsWith("icons:") && !place.toLowerCase().endsWith(".parquet"));
  return resolve(folder ?? join(runs, "data"));
}
