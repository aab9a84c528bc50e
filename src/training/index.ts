export { ParameterAverage } from "./average.js";
export type { StepCompiler } from "./bucketed-train-step.js";
export { checkCaptions } from "./check-captions.js";
export { latestCheckpoint, prepareOutputFolder } from "./checkpoint.js";
export type { BestStep } from "./checkpoint-policy.js";
export { type BucketOptions, bucketsOf, type ImageBucket, type ShapedImages } from "./data/buckets.js";
export { type ContactSheetOptions, renderContactSheet } from "./data/contact-sheet.js";
export {
  type CaptionSource,
  DATASET_SPLITS,
  type DatasetOptions,
  type ImageDataset,
  openDataset,
} from "./data/dataset.js";
export { type DatasetFindings, findIn, lossOf, upscalingOf } from "./data/dataset-findings.js";
export type { Skipped } from "./data/folder-walk.js";
export { DEFAULT_VALIDATION_SPLIT } from "./data/hold-out.js";
export { evenPlaces, subsetOf } from "./data/image-dataset.js";
export type { ImagePlacement } from "./data/image-placement.js";
export type { ImageShape, ImageVariant } from "./data/image-variant.js";
export type { FolderCaptionSource, ImageTraits } from "./data/source-image.js";
export { type CaptionVariation, isVaried, variedCaption } from "./data/varied-caption.js";
export { CHECKED_MODELS, type CheckedModel, trainStepFallbacks } from "./device-check.js";
export { type BatchOptions, DiffusionBatches } from "./diffusion-batches.js";
export { encodeDataset } from "./encode-dataset.js";
export { encodeCaptions, encodeImages, tokenizeCaptions } from "./encode-images.js";
export type { EncodedDataset } from "./encoded-dataset.js";
export { currentEngine } from "./engine.js";
export { type EvaluationOptions, type NoisePredictionError, noisePredictionError } from "./evaluation.js";
export {
  type FineTuneOptions,
  type FineTunePhase,
  type FineTuneResult,
  fineTune,
} from "./fine-tune.js";
export { LEARNING_RATE_SCHEDULES, type LearningRateScheduleName, learningRateSchedule } from "./learning-rate.js";
export { type DrawnSize, fitGeneration } from "./memory/generation-memory.js";
export { type MemoryPhase, type MemoryPlan, memoryBytes, memoryText } from "./memory/memory-plan.js";
export { diffusionBatch, noisedBatch } from "./noised-batch.js";
export {
  Adafactor,
  AdamW,
  AdamW8bit,
  type AdamWOptions,
  clipGradients,
  createOptimizer,
  gradientNorm,
  Lion,
  type LionOptions,
  Muon,
  OPTIMIZER_NAMES,
  Optimizer,
  type OptimizerName,
  Prodigy,
  ScheduleFreeAdamW,
} from "./optimizers/index.js";
export { type LossCurve, lossCurve, smoother } from "./report/loss-curve.js";
export { readMetrics } from "./report/metrics-file.js";
export type { MonitorPhase } from "./report/run-monitor.js";
export { writeRunReport } from "./report/run-report.js";
export type { ErrorAtTimesteps, GatesAtStep, ValidationReport } from "./report/step-report.js";
export { TextConditionedDenoiser } from "./text/text-conditioned-denoiser.js";
export { TEXT_ENCODER_TARGETS, textEncoderConfig } from "./text/text-encoder-config.js";
export { TextTraining, type TextTrainingOptions } from "./text/text-training.js";
export type {
  DiffusionBatch,
  Losses,
  StepOutcome,
  Trainable,
} from "./trainable.js";
export { type StepMeasures, type StepReport, Trainer, type TrainerOptions, type TrainingResult } from "./trainer.js";
