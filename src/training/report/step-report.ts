// What one step of a training did, as it is told, logged and drawn.

import type { Losses } from "../trainable.js";

/** A part of the timesteps, with the mean of an error over it. */
export interface ErrorAtTimesteps {
  /** First timestep, and the one behind the last. */
  from: number;
  to: number;
  error: number;
}

/** A validation: the error of the predicted noise on images that are not trained on, noise and timesteps always the same. */
export interface ValidationReport {
  /** Mean squared error of the predicted noise; comparable between any two trainings of the same model and data. */
  loss: number;
  byTimestep: readonly ErrorAtTimesteps[];
  /** The loss as a sum over bands of spatial frequency, the lowest first. */
  byBand: Readonly<Record<string, number>>;
  /** Predictions made. */
  count: number;
}

/** A router's mean gates at one timestep, one number per expert. */
export interface GatesAtStep {
  timestep: number;
  gates: readonly number[];
}

/** What is known of a step beside its {@link StepReport}; what was not measured is left out. */
export interface StepMeasures {
  /** Of this step's images, in the order of the batch. */
  timesteps?: readonly number[];
  /** Losses of single images, in the order of `timesteps`. */
  sampleLosses?: readonly number[];
  validation?: ValidationReport;
  gates?: readonly GatesAtStep[];
  /** Most main memory that the process has had so far. */
  peakMemoryBytes?: number;
}

/** What one step did: its loss terms by name, and the numbers around them. */
export interface StepReport extends Losses {
  /** Steps done, this one included. */
  step: number;
  steps: number;
  learningRate: number;
  /** L2 norm of all gradients together, before clipping. */
  gradientNorm: number;
  /** Since the run began. */
  seconds: number;
  stepsPerSecond: number;
}

/** Names of a report's numbers that are no loss terms. */
export const NO_TERMS: ReadonlySet<string> = new Set([
  ...["step", "steps", "loss", "learningRate", "gradientNorm", "seconds", "stepsPerSecond", "peakMemoryBytes"],
]);
