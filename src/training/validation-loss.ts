// The loss on images that are not trained on, along a training: noise and timesteps are always the same, so that it can be
// compared between steps, and between trainings of whatever adapter and objective.

import type { Denoiser, Objective } from "../diffusion/index.js";
import type { EncodedDataset, EncodedRows } from "./encoded-dataset.js";
import { ErrorSums } from "./error-sums.js";
import { noisePredictions, predictionCount } from "./evaluation.js";
import type { ValidationReport } from "./report/step-report.js";

/** The same for every training, whatever its own seed: the numbers of `fera evaluate` with its default seed. */
const SEED = 0;

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
    const of = predictionCount(this.data);
    const sums = new ErrorSums(objective.trainTimesteps);
    let count = 0;
    for await (const prediction of noisePredictions(model, this.data, { objective, seed: SEED, batchSize })) {
      sums.add(prediction);
      onProgress?.(++count, of);
    }
    return sums.means();
  }
}
