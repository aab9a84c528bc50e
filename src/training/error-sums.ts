// Errors of predicted noise, added up: all of them, by part of the timesteps, and by band of spatial frequency.

import { addedTo, type BandErrors, ERROR_BANDS, errorByBand } from "./error-bands.js";
import type { NoisePrediction } from "./evaluation.js";
import type { ValidationReport } from "./report/step-report.js";

/** Equal parts of the timesteps that are told apart. */
const PARTS = 10;

/** Takes in predictions one by one. */
export class ErrorSums {
  private readonly bands: BandErrors = { low: 0, middle: 0, high: 0 };
  private readonly parts = Array.from({ length: PARTS }, () => ({ sum: 0, count: 0 }));
  private sum = 0;
  private count = 0;

  /** @param trainTimesteps - Of the objective. */
  constructor(private readonly trainTimesteps: number) {}

  add({ error, timestep, residual, height, width }: NoisePrediction): void {
    const part = this.parts[Math.floor((timestep * PARTS) / this.trainTimesteps)]!;
    part.sum += error;
    part.count++;
    this.sum += error;
    this.count++;
    addedTo(this.bands, errorByBand(residual, height, width));
  }

  /** Means of what was taken in; parts of the timesteps without a prediction are left out. */
  means(): ValidationReport {
    const { bands, parts, count, sum, trainTimesteps } = this;
    const edge = (part: number) => Math.ceil((part * trainTimesteps) / PARTS);
    return {
      loss: sum / count,
      byTimestep: parts.flatMap((part, i) =>
        part.count === 0 ? [] : [{ from: edge(i), to: edge(i + 1), error: part.sum / part.count }],
      ),
      byBand: Object.fromEntries(ERROR_BANDS.map((band) => [band, bands[band] / count])),
      count,
    };
  }
}
