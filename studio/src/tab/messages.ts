// What the page and its worker tell each other.

import type {
  CheckedSettings,
  DrawRequest,
  OptionDescription,
  Prediction,
  RunAction,
  RunSummary,
  StudioEvent,
  TrainSettings,
} from "../../../src/studio/protocol.js";

/** What the worker has to know of the page. */
export interface TabPlace {
  /** The page's address, to which those of the model and of ONNX Runtime are relative. */
  base: string;
  /** Threads that WebAssembly may use. */
  threads: number;
  /** Where it computes unless a training says otherwise. */
  device: TabDevice;
  /** Whether a small size is proposed: the machine is slow. */
  isSlow: boolean;
  version: string;
}

/** Where a tab computes. */
export type TabDevice = "webgpu" | "wasm";

/** Calls of the worker, by name. */
export interface WorkerCalls {
  open(place: TabPlace): void;
  options(): OptionDescription[];
  check(settings: TrainSettings): CheckedSettings;
  predict(settings: TrainSettings): Prediction;
  start(name: string, settings: TrainSettings): RunSummary;
  act(run: string, action: RunAction): void;
  samplers(): string[];
  draw(request: DrawRequest): string;
  cancelDrawing(job: string): void;
  drawing(id: string): Blob;
}

/** Page to worker. */
export type Request =
  | { id: number; name: keyof WorkerCalls; arguments: readonly unknown[] }
  /** Aborts the call of that number. */
  | { abort: number };

/** Worker to page. */
export type Answer =
  | { id: number; value: unknown }
  | { id: number; error: string; isAbort?: true }
  | { event: StudioEvent }
  /** Runs that wait or go on in this tab, as they are now. */
  | { live: RunSummary[] };

/** Told to all tabs of this address. */
export type Broadcast = StudioEvent | { kind: "runsChanged" };
export const CHANNEL = "fera-studio";

/** Locks that all tabs of this address share: one training at a time, and one for each run that is at work. */
export const TRAINING_LOCK = "fera-studio-training";
export const runLock = (run: string): string => `fera-studio-run:${run}`;
