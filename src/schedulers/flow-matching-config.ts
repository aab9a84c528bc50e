// The part of a flow-matching scheduler's configuration that training depends on. No sampling.

import { z } from "zod";
import { ConfigError, quoted } from "../errors.js";
import type { SchedulerConfig } from "./scheduler.js";
import { MAX_TRAIN_TIMESTEPS } from "./scheduler-config.js";

/** The options of {@link FlowMatchingConfig}, for schemas. */
export const FLOW_SHAPE = {
  num_train_timesteps: z.int().min(1).max(MAX_TRAIN_TIMESTEPS).default(1000),
  shift: z.number().gt(0).default(1),
  use_dynamic_shifting: z.boolean().default(false),
  base_shift: z.number().nullable().default(0.5),
  max_shift: z.number().nullable().default(1.15),
  base_image_seq_len: z.int().min(1).default(256),
  max_image_seq_len: z.int().min(1).default(4096),
  time_shift_type: z.enum(["exponential", "linear"]).default("exponential"),
  invert_sigmas: z.literal(false).default(false),
};
const schema = z.object(FLOW_SHAPE);

/** Under diffusers' keys, with its defaults: how timesteps are spread, by a fixed shift or by the image's size. */
export type FlowMatchingConfig = Readonly<z.output<typeof schema>>;

/** Options of diffusers' flow-matching samplers that only say how a sampler walks back. */
export const FLOW_SAMPLER_OPTIONS: ReadonlySet<string> = new Set([
  "scale_factors",
  "stochastic_sampling",
  "upscale_mode",
]);

/** Options of {@link FlowMatchingConfig}. */
export const FLOW_OPTIONS: ReadonlySet<string> = new Set(Object.keys(schema.shape));

/** Whether a scheduler interpolates linearly between image and noise: by its class, or because it was told to. */
export function isFlowMatching({ _class_name: name, use_flow_sigmas }: SchedulerConfig): boolean {
  return use_flow_sigmas === true || (typeof name === "string" && name.includes("FlowMatch"));
}

/**
 * The flow-matching options of a configuration, defaults filled in.
 *
 * Samplers of other families that were told to `use_flow_sigmas` call the shift `flow_shift`, and say what is predicted.
 *
 * @throws {ConfigError} If a value is invalid or not supported.
 */
export function flowMatchingConfigOf(where: string, config: SchedulerConfig): FlowMatchingConfig {
  const { prediction_type: predictionType, flow_shift: flowShift } = config;
  const isOtherFamily = config.use_flow_sigmas === true;
  if (
    isOtherFamily
      ? predictionType !== "flow_prediction"
      : ![undefined, "flow_prediction"].includes(predictionType as string)
  ) {
    throw new ConfigError(
      `${where}: a scheduler of flow matching needs prediction_type flow_prediction; it says ${quoted(predictionType)}.`,
    );
  }
  const given = isOtherFamily && flowShift !== undefined ? { ...config, shift: flowShift } : config;
  const own = Object.fromEntries(
    Object.entries(given).filter(([key, value]) => FLOW_OPTIONS.has(key) && value !== undefined),
  );
  const parsed = schema.safeParse(own);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  const name = String(issue.path[0]);
  throw new ConfigError(
    `${where}: ${name}=${quoted(own[name])} is invalid or not supported (${issue.message}). ` +
      `Check ${name} in scheduler_config.json.`,
  );
}
