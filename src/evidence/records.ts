// A run of the study: what it is told, and what it found. Everything is plain JSON.

import { createHash } from "node:crypto";
import type { ValidationReport } from "../training/index.js";
import type { Task } from "./tasks.js";
import { taskName } from "./tasks.js";

/** `speed` only times steps, `error` is the prediction error alone, `all` draws as well. */
export type Measures = "speed" | "error" | "all";

/** What is the same for all runs of a study; another value makes it another study. */
export interface StudySettings {
  /** Folder of the base model; empty in what is published. */
  model: string;
  /** Hash of its files. */
  modelHash: string;
  batchSize: number;
  /** Most held-out names, all where undefined. */
  limit?: number | undefined;
  /** Sampling steps of a drawing. */
  drawingSteps: number;
}

/** All that decides a run's numbers, but for the machine. */
export interface RunSpec {
  /** Names the file: of no two different runs the same. */
  id: string;
  method: string;
  task: Task;
  seed: number;
  steps: number;
  learningRate: number;
  routerLr?: number | undefined;
  measures: Measures;
  /** The adapter's kind and configuration, as files have it. */
  adapter?: { type: string; config: Record<string, unknown> } | undefined;
  settings: StudySettings;
}

/** A spec with its id. */
export function runSpec(spec: Omit<RunSpec, "id">): RunSpec {
  const { adapter, settings, ...own } = spec;
  const text = JSON.stringify(sorted(own)) + stableText(adapter) + stableText(settings);
  const hash = createHash("sha256").update(text).digest("hex").slice(0, 10);
  return { id: `${spec.method}--${taskName(spec.task)}--seed-${spec.seed}--${hash}`, ...spec };
}

/** Whether a run is of a form of FeRA. */
export const isRouted = ({ adapter }: Pick<RunSpec, "adapter">): boolean => adapter?.type === "fera";

const texts = new WeakMap<object, string>();

/** A value's JSON with its keys in order, without a model's path. Plans name the same few objects thousands of times. */
function stableText(value: object | undefined): string {
  if (!value) return "";
  let text = texts.get(value);
  if (text === undefined) {
    text = JSON.stringify(sorted({ ...value, model: undefined }));
    texts.set(value, text);
  }
  return text;
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, inner]) => inner !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, inner]) => [key, sorted(inner)]),
  );
}

/** A held-out name. */
export interface NameResult {
  name: string;
  /** Mean squared error of the predicted noise over timesteps. */
  error: number;
  /** Of the drawing, where one was made: distances to the true one, and whether none other is nearer. */
  drawing?: { lab: number; edges: number; shape: number; isNearest: boolean } | undefined;
}

/** Errors of the predicted noise, in parts of the timesteps and bands of frequency. */
export interface ErrorParts extends Pick<ValidationReport, "byTimestep" | "byBand"> {
  error: number;
}

/** What the gates do; see gate-analysis.ts. */
export interface GateResult {
  /** Share of the gates' variance that the timestep alone explains; absent where gates do not vary. */
  gatesByTimestep?: number | undefined;
  /** The same of the energies: what is left differs between images at equal timesteps. */
  energiesByTimestep: number;
  /** Mean over timesteps of the standard deviation between images at equal t, by band. */
  energySpread: number[];
  /** Mean gates at each timestep. */
  meanGates: { timestep: number; gates: number[] }[];
  /** Errors with live gates, with those of each timestep frozen to their mean, and with one mean for all. */
  live: number;
  frozenAtTimestep: number;
  frozen: number;
  /** Mean squared cosine between experts' subspaces, inputs and outputs, and what it is by chance. */
  overlap?: { down: number; up: number; downByChance: number; upByChance: number } | undefined;
}

/** What a run found. */
export interface RunRecord {
  spec: RunSpec;
  /** Trained values. */
  parameters: number;
  trainImages: number;
  loss: { first: number; last: number } | undefined;
  /** Median over the steps but the first. */
  secondsPerStep: number | undefined;
  /** The same of the time that processors worked, of all threads together: what other programs took is not in it. */
  cpuSecondsPerStep?: number | undefined;
  /** Of the process until the training's end; where the process did this run alone. */
  peakMemoryBytes?: number | undefined;
  fileBytes: number | undefined;
  heldOut?: (ErrorParts & { names: NameResult[] }) | undefined;
  /** On names that are held out, in the style that the base draws: error with and without, mean square of their difference. */
  own?: { error: number; base: number; drift: number } | undefined;
  /** Shares of 1: nearest to its own; mean distance between drawings of one prompt with several seeds. */
  drawings?: { nearestShare: number; diversity: number } | undefined;
  gates?: GateResult | undefined;
  seconds: number;
  finishedAt: string;
  machine: Record<string, string>;
}
