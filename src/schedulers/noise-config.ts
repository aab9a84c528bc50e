// The part of any scheduler's configuration that training depends on.

import { ConfigError } from "../errors.js";
import { FLOW_OPTIONS, FLOW_SAMPLER_OPTIONS, flowMatchingConfigOf, isFlowMatching } from "./flow-matching-config.js";
import type { SchedulerConfig } from "./scheduler.js";
import { describe, FAMILY_OPTIONS, noiseScheduleOptions } from "./scheduler-config.js";

/**
 * The part of any scheduler's configuration that training depends on: how noise is added, and what the model predicts. How
 * a sampler walks back, and whether its class is supported, is of no matter to it. Of flow matching it is the whole
 * `FlowMatchingConfig`, with `prediction_type` `flow_prediction`.
 *
 * @throws {ConfigError} If an option is unknown, so that nobody can tell whether it changes the noise, or known to make it
 *   one that is not supported here.
 */
export function noiseConfigOf(where: string, config: SchedulerConfig): SchedulerConfig {
  const isFlow = isFlowMatching(config);
  const defining = new Set([...Object.keys(noiseScheduleOptions), "prediction_type", "rescale_betas_zero_snr"]);
  const entries = Object.entries(config).filter(([key, value]) => !key.startsWith("_") && value !== undefined);
  const known = isFlow ? [defining, FAMILY_OPTIONS, FLOW_OPTIONS, FLOW_SAMPLER_OPTIONS] : [defining, FAMILY_OPTIONS];
  const unknown = entries.filter(([key]) => !known.some((names) => names.has(key)));
  if (unknown.length > 0) {
    const shown = unknown.slice(0, 3).map(([key, value]) => `${key}=${describe(value)}`);
    throw new ConfigError(
      `${where}: the scheduler's configuration has ${shown.join(", ")}, of which it is not known here whether the noise ` +
        "depends on it.",
    );
  }
  if (isFlow) return { prediction_type: "flow_prediction", ...flowMatchingConfigOf(where, config) };
  return Object.fromEntries(entries.filter(([key]) => defining.has(key)));
}
