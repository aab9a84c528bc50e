// The loss on images that are not trained on, along a training: noise and timesteps are always the same, so that it can be
// compared between steps, and between trainings of whatever adapter and objective.

import type { Denoiser, Objective } from "../diffusion/index.js";
import type { EncodedDataset, EncodedRows } from "./encoded-dataset.js";
import { addedTo, type BandErrors, ERROR_BANDS, errorByBand } from "./error-bands.js";
import { noisePredictions, predictionCount } from "./evaluation.js";
import type { ValidationReport } from "./report/step-report.js";

/** The same for every training, whatever its own seed: the numbers of `fera evaluate` with its default seed. */
const SEED = 0;
/** Equal parts of the timesteps that are told apart. */
const PARTS = 10;

/** Settings of a {@link ValidationLoss}. */
export interface ValidationLossOptions {
  objective: Objective;
  /** Predictions at once; changes no number but by rounding. */
  batchSize: number;
  /** Called with the predictions done, of how many. */
  onProgress?: (done: number, of: number) => void;
}

/** Measures a model. */
export class ValidationLoss {
  constructor(
    private readonly data: EncodedDataset | EncodedRows,
    private readonly options: ValidationLossOptions,
  ) {}

  /**
   * @param model - As it would be saved.
   * @throws {ShapeError} If there are no images.
   */
  async measure(model: Pick<Denoiser, "predict">): Promise<ValidationReport> {
    const { objective, batchSize, onProgress } = this.options;
    const total = objective.trainTimesteps;
    const of = predictionCount(this.data);
    const bands: BandErrors = { low: 0, middle: 0, high: 0 };
    const parts = Array.from({ length: PARTS }, () => ({ sum: 0, count: 0 }));
    let sum = 0;
    let count = 0;
    for await (const prediction of noisePredictions(model, this.data, { objective, seed: SEED, batchSize })) {
      const part = parts[Math.floor((prediction.timestep * PARTS) / total)]!;
      part.sum += prediction.error;
      part.count++;
      sum += prediction.error;
      addedTo(bands, errorByBand(prediction.residual, prediction.height, prediction.width));
      onProgress?.(++count, of);
    }
    const edge = (part: number) => Math.ceil((part * total) / PARTS);
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
