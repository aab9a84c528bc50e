// Reading a scheduler's configuration: the options that schedulers share, and how a bad one is refused.

import { z } from "zod";
import { ConfigError, quoted, shortened } from "../errors.js";
import type { SchedulerConfig } from "./scheduler.js";

/** Longer schedules than published models have by far; a table of so many values is made of each. */
export const MAX_TRAIN_TIMESTEPS = 100_000;

/** Options that define the noise schedule. */
export const noiseScheduleOptions = {
  num_train_timesteps: z.int().min(1).max(MAX_TRAIN_TIMESTEPS).default(1000),
  beta_start: z.number().gt(0).lt(1).default(0.0001),
  beta_end: z.number().gt(0).lt(1).default(0.02),
  beta_schedule: z.enum(["linear", "scaled_linear", "squaredcos_cap_v2"]).default("linear"),
  trained_betas: z.array(z.number().gt(0).lt(1)).min(1).nullable().default(null),
};

/** `prediction_type`, with all three kinds. */
export const predictionTypeOption = z.enum(["epsilon", "v_prediction", "sample"]).default("epsilon");

/** `timestep_spacing` with the default of the scheduler at hand. */
export function timestepSpacingOption(fallback: "leading" | "linspace") {
  return z.enum(["leading", "trailing", "linspace"]).default(fallback);
}

/** `steps_offset`. */
export const stepsOffsetOption = z.int().min(0).default(0);

/** A switch. */
export function switchOption(fallback: boolean) {
  return z.boolean().default(fallback);
}

/** A switch that must stay off, because what it turns on is not supported. */
export const offOption = z.literal([false, null]).default(false);

/** An option that must stay unset. */
export const unsetOption = z.null().default(null);

// diffusers writes options of one scheduler into another's file when a pipeline's scheduler is exchanged
// (Stable Diffusion 1.5 ships `clip_sample` for PNDM). Where a scheduler has no such option it has no effect,
// in diffusers neither. Options that the schedulers do have are checked by their own schemas.
export const FAMILY_OPTIONS: ReadonlySet<string> = new Set([
  "algorithm_type",
  "clip_sample",
  "clip_sample_range",
  "disable_corrector",
  "dynamic_thresholding_ratio",
  "euler_at_final",
  "final_sigmas_type",
  "flow_shift",
  "interpolation_type",
  "lambda_min_clipped",
  "original_inference_steps",
  "lower_order_final",
  "predict_x0",
  "prediction_type",
  "rescale_betas_zero_snr",
  "sample_max_value",
  "set_alpha_to_one",
  "shift_terminal",
  "sigma_max",
  "sigma_min",
  "skip_prk_steps",
  "solver_order",
  "solver_p",
  "solver_type",
  "steps_offset",
  "thresholding",
  "time_shift_type",
  "timestep_scaling",
  "timestep_spacing",
  "timestep_type",
  "use_beta_sigmas",
  "use_dynamic_shifting",
  "use_exponential_sigmas",
  "use_flow_sigmas",
  "use_karras_sigmas",
  "use_lu_lambdas",
  "variance_type",
]);

/**
 * Checks a configuration and fills in its defaults.
 *
 * Keys that start with an underscore (`_class_name`, `_diffusers_version`) are ignored, and so are options of
 * diffusers' other schedulers that have no meaning for this one.
 *
 * @param className - The scheduler, for messages.
 * @param schema - The scheduler's own options.
 * @throws {ConfigError} If an option is unknown, or its value is invalid or not supported.
 */
export function parseSchedulerConfig<S extends z.ZodObject>(
  className: string,
  schema: S,
  config: SchedulerConfig,
): z.output<S> {
  if (typeof config !== "object" || config === null || Array.isArray(config)) {
    throw new ConfigError(`${className}: the configuration must be an object; got ${quoted(config)}.`);
  }
  const own: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(config)) {
    if (key.startsWith("_") || value === undefined) continue;
    if (Object.hasOwn(schema.shape, key)) own[key] = value;
    else if (!FAMILY_OPTIONS.has(key)) {
      throw new ConfigError(
        `${className}: unknown option ${shortened(key)}=${quoted(value)}; known are ${Object.keys(schema.shape).join(", ")}.`,
      );
    }
  }
  const result = schema.safeParse(own);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const name = String(issue.path[0]);
  throw new ConfigError(
    `${className}: ${name}=${describe(own[name])} is invalid or not supported (${issue.message}). ` +
      `Check ${name} in scheduler_config.json.`,
  );
}

/** A value for a message. */
export function describe(value: unknown): string {
  const text = typeof value === "number" ? String(value) : quoted(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
