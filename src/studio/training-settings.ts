// What a form's settings come to on this machine: where model and data lie, what run.json will hold, what to type. Node only.

import { relative } from "node:path";
import { pathExists } from "../storage/file-access.js";
import { isHubId } from "../storage/hub/index.js";
import { flagWords, shellCommand } from "../training/options/command-line.js";
import { TRAIN_OPTIONS } from "../training/options/train-options.js";
import { checkValues } from "./check-settings.js";
import type { DataSets } from "./data-sets.js";
import type { Models } from "./model-choices.js";
import type { CheckedSettings, SettingsProblem, TrainSettings } from "./protocol.js";

/** Settings that `fera train` can have. */
export interface ResolvedSettings extends CheckedSettings {
  /** For `--config`: what was given, with the paths of model and data. */
  config: TrainSettings;
}

/** Options that name data. */
const DATA_NAMES = ["data", "regularizationData", "validationData"];
const RUNS_PLACEHOLDER = "RUN";

/** Checks a form's settings, and finds model and data. */
export class TrainingSettings {
  constructor(
    private readonly models: Models,
    private readonly dataSets: DataSets,
  ) {}

  /** @param output - Where the run will be. */
  async resolve(settings: TrainSettings, output = `runs/${RUNS_PLACEHOLDER}`): Promise<ResolvedSettings> {
    const { problems, values, given } = checkValues(settings);
    const config = { ...given };
    if (typeof given.model === "string") {
      try {
        config.model = await this.models.chosenPath(given.model);
      } catch (error) {
        problems.push({ option: "model", message: (error as Error).message });
      }
    }
    for (const name of DATA_NAMES) {
      const places = given[name] as string[] | undefined;
      if (places) config[name] = await Promise.all(places.map((place) => this.place(name, place, problems)));
    }
    const model = (await this.models.list()).find(({ id }) => id === given.model);
    const { output: _, resume, overwrite, skippedList, ...kept } = { ...values, ...config };
    const resolution = values.resolution ?? model?.defaultSize;
    return {
      problems,
      config,
      command: commandOf(config, output),
      settings: { ...kept, ...(resolution !== undefined && { resolution }) },
    };
  }

  /** A place of data, checked. */
  private async place(option: string, place: string, problems: SettingsProblem[]): Promise<string> {
    const [, location = place, times = ""] = (await pathExists(place)) ? [] : (/^(.+?)(=\d+)$/.exec(place) ?? []);
    if (location.startsWith("icons:") || (isHubId(location) && !(await pathExists(location)))) return place;
    try {
      return `${await this.dataSets.check(location)}${times}`;
    } catch (error) {
      problems.push({ option, message: (error as Error).message });
      return place;
    }
  }
}

/** What to type for a run; paths from here where they lie here. */
export function commandOf(config: TrainSettings, output: string): string {
  const here = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(here);
    if (typeof value !== "string" || !value.startsWith("/")) return value;
    const way = relative(process.cwd(), value);
    return way !== "" && !way.startsWith("..") ? way : value;
  };
  const shown = Object.fromEntries(
    Object.entries({ ...config, output }).map(([name, value]) =>
      DATA_NAMES.includes(name) || name === "model" || name === "output" ? [name, here(value)] : [name, value],
    ),
  );
  return shellCommand(["npx", "fera", "train", ...flagWords(TRAIN_OPTIONS, shown)]);
}
