// What the page needs of whatever stands behind it. Two implementations: server/ and tab/.

import type {
  AdapterChoice,
  AddedFiles,
  CheckedSettings,
  DataSetQuery,
  DataSetSummary,
  DataSetView,
  DrawRequest,
  MetricsPart,
  OptionDescription,
  Prediction,
  RunAction,
  RunDetails,
  RunSummary,
  StudioEvent,
  StudioState,
  TrainSettings,
} from "../../src/studio/protocol.js";

/** Nothing answers; what was asked for can be asked for again once something does. */
export class LostServer extends Error {}

/** Every call rejects with an Error whose message can be shown as it is: what went wrong, and what to do. */
export interface Backend {
  state(): Promise<StudioState>;
  /** Calls for every event until the returned function is called. */
  subscribe(listener: (event: StudioEvent) => void): () => void;

  dataSet(id: string, query: DataSetQuery): Promise<DataSetView>;
  createDataSet(label: string): Promise<DataSetSummary>;
  addFiles(dataSet: string, files: readonly File[]): Promise<AddedFiles>;
  removeImage(dataSet: string, image: string): Promise<void>;
  setCaption(dataSet: string, image: string, caption: string): Promise<void>;
  /** An address for `<img>`, at most `side` pixels large. */
  imageUrl(dataSet: string, image: string, side: number): Promise<string>;

  options(): Promise<OptionDescription[]>;
  check(settings: TrainSettings): Promise<CheckedSettings>;
  /** May run a few steps, and be asked for again to stop: aborting the signal ends them. */
  predict(settings: TrainSettings, signal: AbortSignal): Promise<Prediction>;
  /** @param name - The run's folder; made up where it is empty. */
  start(name: string, settings: TrainSettings): Promise<RunSummary>;

  runs(): Promise<RunSummary[]>;
  run(id: string): Promise<RunDetails>;
  metrics(id: string, from: number): Promise<MetricsPart>;
  act(run: string, action: RunAction): Promise<void>;
  /** An address of a file of a run: a picture, or the adapter. */
  runFileUrl(run: string, file: string): Promise<string>;

  adapters(): Promise<AdapterChoice[]>;
  samplers(): Promise<string[]>;
  /** @returns The job, which its events name. */
  draw(request: DrawRequest): Promise<string>;
  cancelDrawing(job: string): Promise<void>;
  drawnImageUrl(id: string): Promise<string>;
}
