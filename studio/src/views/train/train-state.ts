// The form's state: what the person has set, what is suggested for the rest, and what the backend says of it. Outlives the view.

import { batch, computed, signal } from "@preact/signals";
import type {
  CheckedSettings,
  DataSetView,
  OptionDescription,
  Prediction,
  SettingsProblem,
  TrainSettings,
} from "../../../../src/studio/protocol.js";
import { isAtWork } from "../../../../src/studio/run-states.js";
import { addressOf, route } from "../../route.js";
import { attempt, backend, runs, studio, tell } from "../../store.js";
import { isUsual, optionOfProblem } from "./option-texts.js";
import { PLACES, type ReadSettings, takeSettings } from "./settings-file.js";
import { type Suggestion, suggest } from "./suggestions.js";

/** What stands above the form, in controls of its own. */
export const SOURCES: readonly string[] = ["model", "data"];

export const options = signal<OptionDescription[]>([]);
/** By name; undefined where the option's own default was chosen over what is suggested. */
export const own = signal<Readonly<Record<string, unknown>>>({});
export const runName = signal("");
/** Data sets as they would be cut to squares, by id. */
export const looked = signal<ReadonlyMap<string, DataSetView>>(new Map());
export const dataError = signal<string | undefined>(undefined);

export const checked = signal<CheckedSettings | undefined>(undefined);
export const isChecking = signal(false);
export const checkError = signal<string | undefined>(undefined);

/** The model that is set, else the first that there is. */
export const model = computed<string>(() => {
  const set = own.value.model;
  return typeof set === "string" ? set : (studio.value?.models[0]?.id ?? "");
});

/** The data sets that are set, else the one that the address names, else the first with images. */
export const data = computed<string[]>(() => {
  if (Array.isArray(own.value.data)) return own.value.data as string[];
  const sets = studio.value?.dataSets ?? [];
  const first = sets.find(({ images }) => images > 0) ?? sets[0];
  return first ? [first.id] : [];
});

const images = computed(() => data.value.flatMap((id) => looked.value.get(id)?.images ?? []));

const defaultSize = computed(() => studio.value?.models.find(({ id }) => id === model.value)?.defaultSize);

/** By option. */
export const suggestions = computed<ReadonlyMap<string, Suggestion>>(() => {
  const state = studio.value;
  if (!state) return new Map();
  const { machine, kind } = state;
  const known = new Set(options.value.map(({ name }) => name));
  const all = suggest({ images: images.value, defaultSize: defaultSize.value, machine, kind, own: own.value });
  return new Map(all.filter(({ option }) => known.has(option)).map((suggestion) => [suggestion.option, suggestion]));
});

/** What would be trained: what is set, and what is suggested for the rest. */
export const settings = computed<TrainSettings>(() => {
  const suggested = [...suggestions.value.values()].map(({ option, value }) => [option, value]);
  const all = { ...Object.fromEntries(suggested), ...own.value, model: model.value, data: data.value };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
});

/** Options whose value is not their default. */
export const changed = computed<ReadonlySet<string>>(() => {
  const names = options.value.filter((option) => !isUsual(option, settings.value[option.name])).map(({ name }) => name);
  return new Set(names.filter((name) => !SOURCES.includes(name)));
});

/** Options that the chosen kind of adapter has, and others as long as they are set, which is a problem to be seen. */
export const offered = computed(() => {
  const kind = String(settings.value.adapter ?? options.value.find(({ name }) => name === "adapter")?.default ?? "");
  return options.value.filter(
    ({ name, adapters }) =>
      !SOURCES.includes(name) && (!adapters || adapters.includes(kind) || changed.value.has(name)),
  );
});

/** Problems by option; under "" those of none. */
export const problems = computed<ReadonlyMap<string, SettingsProblem[]>>(() => {
  const found = new Map<string, SettingsProblem[]>();
  for (const problem of checked.value?.problems ?? []) {
    const option = optionOfProblem(problem, options.value) ?? "";
    found.set(option, [...(found.get(option) ?? []), problem]);
  }
  return found;
});

/** Sets an option; undefined for its own default. */
export function set(name: string, value: unknown): void {
  own.value = { ...own.value, [name]: value };
}

/** Back to what is suggested, else the default. */
export function reset(name: string): void {
  const { [name]: _, ...rest } = own.value;
  own.value = rest;
}

/** Takes other settings for all that is set, and says what of them it has no place for. */
export function replaceAll({ settings: given, leftOut }: ReadSettings, source: string): void {
  own.value = given;
  const left = leftOut.length === 0 ? "" : ` Not taken, as the form has no such option: ${leftOut.join(", ")}.`;
  tell(
    `The settings of ${source} are in the form.${left}`,
    leftOut.some((name) => !PLACES.has(name)),
  );
}

export async function useSettingsOf(run: string): Promise<void> {
  await attempt(async () => {
    const { settings: given } = await backend().run(run);
    replaceAll(takeSettings(given, options.value), run);
  });
}

/** Asks for the options, once. */
export async function loadOptions(): Promise<void> {
  if (options.value.length > 0) return;
  const found = await attempt(() => backend().options());
  if (found) options.value = found;
}

/** Takes the data set that the address names: a link from the data view. */
export function takeRoute(): void {
  const named = route.value.view === "train" ? route.value.parameters.get("data") : null;
  if (named === null || !studio.value?.dataSets.some(({ id }) => id === named)) return;
  set("data", [named]);
  history.replaceState(undefined, "", addressOf("train"));
}

/** Looks at the images, for suggestions. */
export async function lookAtData(): Promise<void> {
  const resolution = numberOr(settings.value.resolution, defaultSize.value ?? 512);
  try {
    for (const id of data.value) {
      const found = await backend().dataSet(id, { resolution, bucket: false });
      looked.value = new Map([...looked.value, [id, found]]);
    }
    dataError.value = undefined;
  } catch (error) {
    dataError.value = (error as Error).message;
  }
}

const numberOr = (value: unknown, other: number): number =>
  Number.isInteger(value) && (value as number) > 0 ? (value as number) : other;

let request = 0;
let waiting: ReturnType<typeof setTimeout> | undefined;
const CHECK_DELAY_MS = 250;

/** Has the settings checked once typing rests. */
export function checkSoon(): void {
  clearTimeout(waiting);
  isChecking.value = true;
  waiting = setTimeout(() => void check(), CHECK_DELAY_MS);
}

async function check(): Promise<void> {
  const number = ++request;
  try {
    const result = await backend().check(settings.value);
    if (number !== request) return;
    batch(() => {
      checked.value = result;
      checkError.value = undefined;
      isChecking.value = false;
    });
  } catch (error) {
    if (number !== request) return;
    batch(() => {
      checkError.value = (error as Error).message;
      isChecking.value = false;
    });
  }
}

// Prediction

/** A prediction, and of what. */
export interface Predicting {
  /** The settings as JSON: others than now make it an old one. */
  of: string;
  progress?: { done: number; total: number };
  result?: Prediction;
  error?: string;
  controller?: AbortController;
}

export const predicting = signal<Predicting | undefined>(undefined);

/** Has the training's time and memory predicted. */
export async function predict(): Promise<void> {
  const controller = new AbortController();
  const of = JSON.stringify(settings.value);
  predicting.value = { of, controller };
  const stopListening = backend().subscribe((event) => {
    if (event.kind !== "predicting" || predicting.value?.controller !== controller) return;
    const { done, total } = event;
    predicting.value = { ...predicting.value, progress: { done, total } };
  });
  try {
    predicting.value = { of, result: await backend().predict(settings.value, controller.signal) };
  } catch (error) {
    predicting.value = controller.signal.aborted ? undefined : { of, error: (error as Error).message };
  } finally {
    stopListening();
  }
}

export const abortPrediction = (): void => predicting.value?.controller?.abort();

// Starting

export const isStarting = signal(false);
/** The training that this one would wait for. */
export const ahead = computed(() => runs.value.find(({ state }) => isAtWork(state)));

/** Starts, or queues, the training, and goes to watch it. */
export async function start(): Promise<void> {
  isStarting.value = true;
  // A run is queued for a moment, whether it has to wait or not.
  const before = ahead.value?.id;
  const run = await attempt(() => backend().start(runName.value.trim(), settings.value));
  isStarting.value = false;
  if (!run) return;
  runName.value = "";
  if (before !== undefined) tell(`${run.id} is queued: it starts when ${before} has ended.`);
  location.hash = addressOf("watch", { run: run.id });
}
