// How large a study is: steps, held-out names, tries of a rate, and what its parts have. Tasks, seeds, pairing and corrections
// are the same in all; what a smaller one costs is width of its intervals, which the page tells.

import { PARTS, type Part } from "./parts.js";

/** A size of the study. */
export interface Preset {
  /** Optimizer steps of a training. */
  steps: number;
  /** Most held-out names, spread evenly; all where undefined. */
  limit: number | undefined;
  /** Sampling steps of a drawing. */
  drawingSteps: number;
  /** Learning rates that are tried, as many for every method; fewer steps need larger ones. */
  rates: Readonly<Record<"adapter" | "full", readonly number[]>>;
  /** Which of them is taken where nothing was tuned. */
  untuned: number;
  /** The parts that are run where none are named. */
  parts: readonly Part[];
  /** Methods that learn from few drawings, and those that learn one thing. */
  fewMethods: readonly string[];
  subjectMethods: readonly string[];
}

/** The sizes, by name. */
export const PRESETS = {
  /** A quarter of the steps: what an evening on two cores has time for. */
  quick: {
    ...{ steps: 150, limit: 32, drawingSteps: 8 },
    rates: { adapter: [1e-3, 2e-3, 4e-3, 8e-3], full: [1e-4, 2e-4, 4e-4, 8e-4] },
    untuned: 2,
    parts: PARTS,
    fewMethods: ["lora", "fera", "fera-plain"],
    subjectMethods: ["lora", "fera", "fera-plain", "t-lora", "none"],
  },
  full: {
    ...{ steps: 600, limit: undefined, drawingSteps: 12 },
    rates: { adapter: [5e-4, 1e-3, 2e-3, 4e-3], full: [5e-5, 1e-4, 2e-4, 4e-4] },
    untuned: 2,
    parts: PARTS.filter((part) => !part.startsWith("long") && part !== "all-names"),
    fewMethods: ["lora", "fera", "fera-plain", "fera-shared", "t-lora"],
    subjectMethods: ["lora", "fera", "fera-plain", "fera-shared", "t-lora", "none"],
  },
} as const satisfies Readonly<Record<string, Preset>>;

export type PresetName = keyof typeof PRESETS;
export const PRESET_NAMES = Object.keys(PRESETS) as PresetName[];
