// What a denoiser is trained to do: how a clean latent and noise become its input and its target, the losses between target
// and prediction, and their weights. Draws nothing: images, noise and timesteps are given.

import { ConfigError, quoted } from "../errors.js";
import { flowMatchingConfigOf, isFlowMatching, noiseConfigOf, type SchedulerConfig } from "../schedulers/index.js";
import { Tensor, tensor } from "../tensor/tensor.js";
import {
  LOSS_WEIGHTINGS,
  type LossWeighting,
  type LossWeightingOptions,
  lossWeighting,
  predictionScale,
} from "./loss-weighting.js";
import { type NoiseLevel, type NoiseProcess, rectifiedFlow, variancePreserving } from "./noise-process.js";
import {
  HUBER_DEFAULTS,
  HUBER_SCHEDULES,
  type HuberSchedule,
  hasThreshold,
  huberThreshold,
  LOSS_KINDS,
  type LossKind,
  type LossTerms,
  pointwiseLoss,
} from "./pointwise-loss.js";
import { type Factors, PREDICTION_KINDS, PREDICTION_TYPES, type TrainedPrediction } from "./prediction-types.js";

/** A training objective. B batch, T number of training timesteps. */
export interface Objective extends LossTerms {
  readonly predictionType: TrainedPrediction;
  /** T. Timesteps are integers from 0 to T − 1; of a continuous objective (flow) any numbers from 0 to T. */
  readonly trainTimesteps: number;
  readonly isContinuous: boolean;
  /**
   * Input and target.
   *
   * @param clean - x_0, `[B, …]`.
   * @param noise - ε, of the same shape.
   * @param timesteps - B of them.
   * @param inputNoise - What is added to the image where that is not ε itself (input perturbation); the target stays.
   */
  noised(
    clean: Tensor<"float32">,
    noise: Tensor<"float32">,
    timesteps: readonly number[],
    inputNoise?: Tensor<"float32">,
  ): NoisedBatch;
  /** Factors of output and input that give the predicted noise: ε̂ = a·output + b·z_t. */
  noiseFactors(timestep: number): Factors;
  /** α and σ. */
  levelAt(timestep: number): NoiseLevel;
  /** What the loss of a sample is multiplied with. */
  lossWeight(timestep: number): number;
  /** The factor by which drawn timesteps move towards noise unless told otherwise, from the scheduler's configuration. */
  shiftFor(latentHeight: number, latentWidth: number): number;
}

/** Of the shape of the clean latents. */
export interface NoisedBatch {
  /** z_t. */
  latents: Tensor<"float32">;
  target: Tensor<"float32">;
  /** float32 `[B]`, where the objective weights noise levels. */
  lossWeights?: Tensor<"float32">;
  /** float32 `[B]`, where the loss has a threshold. */
  huberC?: Tensor<"float32">;
}

/** Options of {@link createObjective}; without any, the mean squared error of what the checkpoint was made to predict. */
export interface ObjectiveOptions extends LossWeightingOptions {
  /** Instead of what the scheduler's configuration says. A model learns to predict something else only by long training. */
  predictionType?: TrainedPrediction;
  /** Rescales the noise schedule to end in pure noise. Not for models that predict noise: none of the image is left. */
  zeroTerminalSnr?: boolean;
  /** Default `mse`. */
  loss?: LossKind;
  /** Where `huber` and `smooth-l1` turn linear, above 0. Default 0.1. */
  huberC?: number;
  /** How that follows the timestep. Default `snr`. */
  huberSchedule?: HuberSchedule;
  /** By noise level. Default `none`, or `min-snr` where `minSnrGamma` is given. */
  lossWeighting?: LossWeighting;
}

/**
 * The objective that a checkpoint was made with, from its scheduler's whole configuration, whatever the scheduler's class:
 * the noise process, and `prediction_type`. Options say what is different.
 *
 * epsilon, v_prediction, sample: z_t = √ᾱ_t·x_0 + √(1 − ᾱ_t)·ε. flow_prediction: z_t = (1 − σ)·x_0 + σ·ε, the target
 * ε − x_0, timesteps σ·T.
 *
 * @param config - As in `scheduler_config.json`.
 * @throws {ConfigError} If the configuration or an option asks for what training cannot honour.
 */
export function createObjective(config: SchedulerConfig, options: ObjectiveOptions = {}): Objective {
  checkOptions(options);
  const { loss = "mse", minSnrGamma } = options;
  const { huberC, huberSchedule } = { ...HUBER_DEFAULTS, ...defined(options, ["huberC", "huberSchedule"]) };
  const { process, predictionType } = processOf(config, options);
  const kind = PREDICTION_KINDS[predictionType];
  const { levelAt, trainTimesteps } = process;
  const weighting = options.lossWeighting ?? (minSnrGamma === undefined ? "none" : "min-snr");
  const byLevel = lossWeighting(weighting, predictionType, trainTimesteps, options);
  const scale = predictionScale(predictionType, options);
  const weight = byLevel && scale ? (level: NoiseLevel) => byLevel(level) * scale(level) : (byLevel ?? scale);
  if (weight) checkWeights(byLevel ? `lossWeighting "${weighting}"` : "vPredLikeLoss", process, weight);
  const perSample = (timesteps: readonly number[], value: (timestep: number) => number) =>
    tensor(timesteps.map(value), [timesteps.length]);
  const thresholdAt = (t: number) => huberThreshold(huberSchedule, huberC, levelAt(t), t / trainTimesteps);
  const weightAt = (t: number) => weight?.(levelAt(t)) ?? 1;
  return {
    ...pointwiseLoss(loss, weight ? ["lossWeights"] : []),
    ...process,
    predictionType,
    noised(clean, noise, timesteps, inputNoise = noise) {
      const levels = timesteps.map(levelAt);
      const inputFactors = levels.map(({ alpha, sigma }): Factors => [alpha, sigma]);
      return {
        latents: mixRows(clean, inputNoise, inputFactors),
        target: mixRows(clean, noise, levels.map(kind.target)),
        ...(weight && { lossWeights: perSample(timesteps, weightAt) }),
        ...(hasThreshold(loss) && { huberC: perSample(timesteps, thresholdAt) }),
      };
    },
    noiseFactors: (timestep) => kind.noise(levelAt(timestep)),
    lossWeight: weightAt,
  };
}

/** The noise process and what is predicted, from configuration and options. */
function processOf(
  config: SchedulerConfig,
  { predictionType: wanted, zeroTerminalSnr = false }: ObjectiveOptions,
): { process: NoiseProcess; predictionType: TrainedPrediction } {
  const noise = noiseConfigOf("training", config);
  const isFlow = isFlowMatching(config);
  if (isFlow && (wanted ?? "flow_prediction") !== "flow_prediction") {
    throw new ConfigError(
      `training: predictionType ${wanted} needs a noise schedule; the model's scheduler is of flow matching and has none.`,
    );
  }
  if (isFlow || wanted === "flow_prediction") {
    if (zeroTerminalSnr)
      throw new ConfigError("training: zeroTerminalSnr is not for flow, which ends in pure noise anyway.");
    // Of another scheduler only the number of timesteps has a meaning here.
    const flow = isFlow ? config : { num_train_timesteps: variancePreserving(noise).trainTimesteps };
    return { process: rectifiedFlow(flowMatchingConfigOf("training", flow)), predictionType: "flow_prediction" };
  }
  const process = variancePreserving({
    ...noise,
    ...(wanted && { prediction_type: wanted }),
    ...(zeroTerminalSnr && { rescale_betas_zero_snr: true }),
  });
  const { predictionType } = process;
  if (zeroTerminalSnr && predictionType === "epsilon") {
    throw new ConfigError(
      "training: zeroTerminalSnr is not for models that predict epsilon: at the last timestep the input is the noise, so " +
        "that nothing can be learned there, and nothing can be sampled from it. Take predictionType v_prediction or sample.",
    );
  }
  return { process, predictionType };
}

/** @throws {ConfigError} If an option has a value that it cannot have. */
function checkOptions(options: ObjectiveOptions): void {
  const { minSnrGamma, lossWeighting: weighting } = options;
  const words = {
    predictionType: PREDICTION_TYPES,
    loss: LOSS_KINDS,
    huberSchedule: HUBER_SCHEDULES,
    lossWeighting: LOSS_WEIGHTINGS,
  } as const;
  for (const [name, allowed] of Object.entries(words)) {
    const value = options[name as keyof typeof words];
    if (value === undefined || (allowed as readonly string[]).includes(value)) continue;
    throw new ConfigError(`training: ${name} must be one of ${allowed.join(", ")}; got ${quoted(value)}.`);
  }
  for (const name of ["huberC", "minSnrGamma", "p2K"] as const) {
    const value = options[name];
    if (value === undefined || (value > 0 && value < Number.POSITIVE_INFINITY)) continue;
    throw new ConfigError(`training: ${name} must be a finite number above 0; got ${value}.`);
  }
  for (const name of ["p2Gamma", "vPredLikeLoss"] as const) {
    const value = options[name] ?? 0;
    if (value >= 0 && value < Number.POSITIVE_INFINITY) continue;
    throw new ConfigError(`training: ${name} must be a finite number, 0 or more; got ${value}.`);
  }
  if (minSnrGamma !== undefined && weighting !== undefined && weighting !== "min-snr") {
    throw new ConfigError(
      `training: minSnrGamma is of lossWeighting min-snr; got lossWeighting ${weighting}. Leave one out.`,
    );
  }
}

/** @throws {ConfigError} If a weight is not finite, as at a timestep without any signal. */
function checkWeights(name: string, process: NoiseProcess, weight: (level: NoiseLevel) => number): void {
  for (let timestep = 0; timestep < process.trainTimesteps; timestep++) {
    const value = weight(process.levelAt(timestep));
    if (Number.isFinite(value)) continue;
    throw new ConfigError(
      `training: ${name} is ${value} at timestep ${timestep}, where the scheduler's noise leaves nothing of ` +
        "the image (rescale_betas_zero_snr). Take another weighting.",
    );
  }
}

/** Those of the named options that are given. */
function defined<T, K extends keyof T>(options: T, names: readonly K[]): { [N in K]: NonNullable<T[N]> } {
  const entries = names.map((name) => [name, options[name]]).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries);
}

/** a·x + b·y with one pair of factors per row; a term whose factor is 0 is left out. */
function mixRows(x: Tensor<"float32">, y: Tensor<"float32">, factors: readonly Factors[]): Tensor<"float32"> {
  const stride = x.size / factors.length;
  const result = new Float32Array(x.size);
  factors.forEach(([a, b], row) => {
    for (let i = row * stride; i < (row + 1) * stride; i++) {
      result[i] = a === 0 ? b * y.data[i]! : a * x.data[i]! + b * y.data[i]!;
    }
  });
  return new Tensor("float32", x.shape, result);
}
