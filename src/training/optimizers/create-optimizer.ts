// The optimizers by the names that configurations and the command line use: a new one needs its file and a line here.

import { ConfigError } from "../../errors.js";
import { AdamW } from "./adamw.js";
import { Lion } from "./lion.js";
import type { Optimizer } from "./optimizer.js";

const OPTIMIZERS = { adamw: AdamW, lion: Lion } as const;

export type OptimizerName = keyof typeof OPTIMIZERS;

export const OPTIMIZER_NAMES = Object.keys(OPTIMIZERS) as readonly OptimizerName[];

/**
 * Makes an optimizer; options that are left out have its own defaults.
 *
 * @throws {ConfigError} If there is none of that name, or an option is out of its range.
 */
export function createOptimizer<Name extends OptimizerName>(
  name: Name,
  options: ConstructorParameters<(typeof OPTIMIZERS)[Name]>[0] = {},
): Optimizer {
  if (!Object.hasOwn(OPTIMIZERS, name)) {
    throw new ConfigError(
      `createOptimizer: name must be one of ${OPTIMIZER_NAMES.join(", ")}; got ${JSON.stringify(name)}.`,
    );
  }
  return new OPTIMIZERS[name](options);
}
