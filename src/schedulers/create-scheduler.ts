// A scheduler from its configuration file.

import { ConfigError, quoted } from "../errors.js";
import { DDIMScheduler } from "./ddim-scheduler.js";
import { DDPMScheduler } from "./ddpm-scheduler.js";
import { DPMSolverMultistepScheduler } from "./dpm-solver-multistep-scheduler.js";
import { EulerAncestralDiscreteScheduler } from "./euler-ancestral-discrete-scheduler.js";
import { EulerDiscreteScheduler } from "./euler-discrete-scheduler.js";
import { FlowMatchEulerDiscreteScheduler } from "./flow-match-euler-discrete-scheduler.js";
import { LCMScheduler } from "./lcm-scheduler.js";
import { PNDMScheduler } from "./pndm-scheduler.js";
import type { Scheduler, SchedulerConfig } from "./scheduler.js";
import { UniPCMultistepScheduler } from "./uni-pc-multistep-scheduler.js";

const CLASSES: ReadonlyMap<string, new (config: SchedulerConfig) => Scheduler> = new Map([
  ["DDPMScheduler", DDPMScheduler],
  ["DDIMScheduler", DDIMScheduler],
  ["EulerDiscreteScheduler", EulerDiscreteScheduler],
  ["EulerAncestralDiscreteScheduler", EulerAncestralDiscreteScheduler],
  ["DPMSolverMultistepScheduler", DPMSolverMultistepScheduler],
  ["UniPCMultistepScheduler", UniPCMultistepScheduler],
  ["PNDMScheduler", PNDMScheduler],
  ["LCMScheduler", LCMScheduler],
  ["FlowMatchEulerDiscreteScheduler", FlowMatchEulerDiscreteScheduler],
] as [string, new (config: SchedulerConfig) => Scheduler][]);

/**
 * Makes the scheduler that a configuration names in `_class_name`.
 *
 * @param config - The contents of diffusers' `scheduler_config.json`.
 * @throws {ConfigError} If the class is missing or not supported, or one of its options is.
 */
export function createScheduler(config: SchedulerConfig): Scheduler {
  const name = (config as SchedulerConfig | null | undefined)?._class_name;
  const SchedulerClass = typeof name === "string" ? CLASSES.get(name) : undefined;
  if (!SchedulerClass) {
    throw new ConfigError(
      `createScheduler: _class_name=${quoted(name)} is not supported; supported are ${[...CLASSES.keys()].join(", ")}.`,
    );
  }
  return new SchedulerClass(config);
}
