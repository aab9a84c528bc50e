// The optimizers by the names that configurations and the command line use: a new one needs its file and a line here.

import { ConfigError } from "../../errors.js";
import { Adafactor } from "./adafactor.js";
import { AdamW } from "./adamw.js";
import { AdamW8bit } from "./adamw-8bit.js";
import { Lion } from "./lion.js";
import { Muon } from "./muon.js";
import { Prodigy } from "./prodigy.js";
import { ScheduleFreeAdamW } from "./schedule-free.js";

const OPTIMIZERS = {
  adamw: AdamW,
  "adamw-8bit": AdamW8bit,
  adafactor: Adafactor,
  lion: Lion,
  prodigy: Prodigy,
  "schedule-free": ScheduleFreeAdamW,
  muon: Muon,
} as const;

export type OptimizerName = keyof typeof OPTIMIZERS;

export const OPTIMIZER_NAMES = Object.keys(OPTIMIZERS) as readonly OptimizerName[];

/**
 * What a fine-tuning of adapters takes where no learning rate is given. Lion's is a third of AdamW's, as its authors advise,
 * schedule-free AdamW's five times; Prodigy finds its own, which 1 leaves as it is; Adafactor's steps are relative without one.
 */
export const FINE_TUNING_RATES: Readonly<Record<OptimizerName, number | undefined>> = {
  adamw: 1e-4,
  "adamw-8bit": 1e-4,
  adafactor: undefined,
  lion: 3e-5,
  prodigy: 1,
  "schedule-free": 5e-4,
  muon: 1e-3,
};

/**
 * Makes an optimizer; options that are left out have its own defaults.
 *
 * @throws {ConfigError} If there is none of that name, or an option is out of its range.
 */
export function createOptimizer<Name extends OptimizerName>(
  name: Name,
  options: ConstructorParameters<(typeof OPTIMIZERS)[Name]>[0] = {},
): InstanceType<(typeof OPTIMIZERS)[Name]> {
  if (!Object.hasOwn(OPTIMIZERS, name)) {
    throw new ConfigError(
      `createOptimizer: name must be one of ${OPTIMIZER_NAMES.join(", ")}; got ${JSON.stringify(name)}.`,
    );
  }
  const Class = OPTIMIZERS[name] as new (given: object) => InstanceType<(typeof OPTIMIZERS)[Name]>;
  return new Class(options);
}
