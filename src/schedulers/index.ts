export { createScheduler } from "./create-scheduler.js";
export { DDIMScheduler } from "./ddim-scheduler.js";
export { DDPMScheduler } from "./ddpm-scheduler.js";
export { DPMSolverMultistepScheduler } from "./dpm-solver-multistep-scheduler.js";
export { EulerDiscreteScheduler } from "./euler-discrete-scheduler.js";
export { type NoiseScheduleConfig, noiseAlphasCumprod, noiseBetas } from "./noise-schedule.js";
export { PNDMScheduler } from "./pndm-scheduler.js";
export type { PredictionType, Scheduler, SchedulerConfig, StepOptions, StepOutput } from "./scheduler.js";
