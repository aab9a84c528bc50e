// What the studio's page and whatever stands behind it tell each other: a server over HTTP, or a worker in the same tab.
// Types alone; every value is JSON.

import type { RoutingTrace } from "../pipelines/denoise.js";
import type { MetricsLine } from "../training/report/metrics-file.js";

export type { MetricsLine, RoutingTrace };

/** What the page finds behind it. */
export interface StudioState {
  version: string;
  /** A server on this or another machine, or the page's own worker. */
  kind: "server" | "tab";
  machine: { cores: number; memoryBytes?: number };
  /** Where training runs: "cpu", "webgpu", "wasm". */
  device: string;
  models: ModelChoice[];
  dataSets: DataSetSummary[];
  /** Folder of the runs, as a person would name it. */
  runsFolder: string;
  /** What the machine lacks, and what would help: sentences, shown once. */
  notes?: string[];
}

/** A model that can be trained and drawn with. */
export interface ModelChoice {
  /** A path, a hub id, or "embedded" for the model that comes with the library. */
  id: string;
  label: string;
  /** Pixels of a side that it was trained for, where that is known without loading it. */
  defaultSize?: number;
}

// Data

/** A folder of images. */
export interface DataSetSummary {
  /** Names it in every call: a path on a server, a plain name in a tab. */
  id: string;
  label: string;
  images: number;
  /** Whether images may be added and captions written. */
  isWritable: boolean;
}

/** How a data set is looked at: what a training would see. */
export interface DataSetQuery {
  /** Side of the images in pixels. */
  resolution: number;
  bucket?: boolean;
}

export type ImageWarningKind =
  | "turned"
  | "tiny"
  | "duplicate"
  | "uncaptioned"
  | "emptyCaption"
  | "blurred"
  | "cut"
  | "animated"
  | "transparent";

/** What is worth a second look. */
export interface ImageWarning {
  kind: ImageWarningKind;
  /** A sentence. */
  text: string;
}

/** An image with its caption, as a training would see it. */
export interface DataSetImage {
  /** Path in the data set; names it in every call. */
  name: string;
  caption: string;
  /** Whether the caption can be written beside the image, as NAME.txt. */
  isEditable: boolean;
  /** The file's own pixels, upright. */
  originalWidth: number;
  originalHeight: number;
  /** The bucket: what it is trained at. */
  width: number;
  height: number;
  /** The part of the original that is trained on, as shares of its sides, 0…1. */
  crop: { left: number; top: number; width: number; height: number };
  /** How often it comes in an epoch. */
  repeats: number;
  warnings: ImageWarning[];
}

/** A data set that is looked at. */
export interface DataSetView {
  id: string;
  label: string;
  isWritable: boolean;
  images: DataSetImage[];
  buckets: { width: number; height: number; images: number }[];
  /** Files that are no images, or damaged ones. */
  skipped: { path: string; reason: string }[];
}

/** What became of files that were dropped. */
export interface AddedFiles {
  added: string[];
  refused: { name: string; reason: string }[];
}

// Options

/** An option of a training, as the form shows it; made of the declaration that the command line has. */
export interface OptionDescription {
  /** camelCase, as in run.json. */
  name: string;
  /** `--kebab-case`. */
  flag: string;
  help: string;
  kind: "integer" | "number" | "text" | "choice" | "switch" | "list";
  choices?: string[];
  default?: unknown;
  minimum?: number;
  maximum?: number;
  /** Completes "must be …". */
  rule: string;
  /** Heading under which it is shown: "Adapter", "Optimizer", … */
  group: string;
  /** One of the dozen that matter; the rest is folded. */
  isMain: boolean;
  /** The kinds of adapter that have it; absent where all have. */
  adapters?: string[];
}

/** Options of a training by their names in run.json; what is left out has its default. */
export type TrainSettings = Record<string, unknown>;

/** What was wrong with an option: which, and the whole sentence. */
export interface SettingsProblem {
  /** Undefined where it is about several. */
  option?: string;
  message: string;
}

/** What a training would be. */
export interface CheckedSettings {
  problems: SettingsProblem[];
  /** What to type for the same. */
  command: string;
  /** What run.json will hold. */
  settings: TrainSettings;
}

/** What a training will take, from steps that were measured. */
export interface Prediction {
  secondsPerStep: number;
  /** Of the whole training, with encoding and pictures as far as they were measured. */
  seconds: number;
  peakMemoryBytes?: number;
  /** "an earlier run with the same options", "3 steps that were run just now": says how sure this is. */
  basis: string;
}

// Runs

export type RunState = "queued" | "starting" | "running" | "stopping" | "paused" | "stopped" | "finished" | "failed";

/** A run in the list. */
export interface RunSummary {
  /** Its folder's name within the runs folder. */
  id: string;
  state: RunState;
  step: number;
  steps: number;
  loss?: number;
  secondsLeft?: number;
  stepsPerSecond?: number;
  peakMemoryBytes?: number;
  /** What it is doing beside its steps: "encoding images 3 of 12". */
  activity?: string;
  /** Why it failed and what to do, in words. */
  error?: string;
  model: string;
  /** "fera", "lora", … */
  adapterKind: string;
  /** Milliseconds since 1970. */
  changedAt: number;
  canResume: boolean;
  /** Whether this studio started it and may pause and stop it; a run of the command line is only looked at. */
  isOurs: boolean;
}

/** Pictures along a run, of one prompt. */
export interface PromptPictures {
  prompt: string;
  /** Seeds of the pictures of a step. */
  images: number;
  /** What the model draws without the adapter, one per seed: names for `runFileUrl`. */
  without: string[];
  steps: {
    step: number;
    files: string[];
    /** How the adapter was mixed along the sampling, one trace for each seed; absent where nothing was routed. */
    routes?: RoutingTrace[];
  }[];
}

/** All of a run but its metrics. */
export interface RunDetails extends RunSummary {
  settings: TrainSettings;
  command: string;
  pictures: PromptPictures[];
  /** Name of the adapter for `runFileUrl`, once there is one. */
  adapterFile?: string;
  /** For `AdapterChoice.id`. */
  adapterId?: string;
}

/** Lines of metrics.jsonl. */
export interface MetricsPart {
  lines: MetricsLine[];
  /** Where the next part begins. */
  next: number;
  /** True where the file was begun anew since: what was read before is void. */
  isReset: boolean;
}

export type RunAction = "pause" | "resume" | "stop" | "remove";

// Trying

/** An adapter that can be drawn with. */
export interface AdapterChoice {
  /** Names it in a request: a path on a server. */
  id: string;
  label: string;
  /** The run that made it. */
  run?: string;
  model?: string;
}

/** What varies along an axis of a grid. */
export interface GridAxis {
  option: "prompt" | "seed" | "steps" | "guidanceScale" | "sampler" | "adapterScale";
  values: (string | number)[];
}

/** What is to be drawn. */
export interface DrawRequest {
  model: string;
  prompt: string;
  negativePrompt?: string;
  /** Drawn anew where none is given. */
  seed?: number;
  steps: number;
  guidanceScale: number;
  /** One of `SAMPLERS`; the model's own by default. */
  sampler?: string;
  width?: number;
  height?: number;
  /** Adapters at once, by id of their `AdapterChoice`. */
  adapters: { id: string; scale: number }[];
  /** Draws every picture a second time without the adapters. */
  compare: boolean;
  grid?: { x?: GridAxis; y?: GridAxis };
}

/** A picture that was drawn. */
export interface DrawnImage {
  /** A name for `drawnImageUrl`: a PNG whose text chunks hold its settings. */
  id: string;
  /** Its place in the grid; 0, 0 without one. */
  x: number;
  y: number;
  withoutAdapters: boolean;
  width: number;
  height: number;
  seed: number;
  seconds: number;
  /** Of every routed adapter in use, by its label. */
  routes: { adapter: string; route: RoutingTrace }[];
}

/** What goes on behind the page; sent as it happens. */
export type StudioEvent =
  | { kind: "connection"; isConnected: boolean }
  /** The list of runs, or of what can be drawn with, has changed. */
  | { kind: "runs"; runs: RunSummary[] }
  | { kind: "metrics"; run: string }
  | { kind: "pictures"; run: string }
  | { kind: "dataSets" }
  | { kind: "drawing"; job: string; done: number; total: number; activity?: string }
  | { kind: "drawn"; job: string; image: DrawnImage }
  | { kind: "drawingEnded"; job: string; error?: string }
  | { kind: "predicting"; done: number; total: number };
