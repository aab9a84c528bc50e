// The options of a training, each declared once: flags, configuration files, help, run.json and the fingerprint that guards
// a resumed run come from this table, and so does what `fineTune` takes.

import { BATCH_OPTIONS } from "./batch-options.js";
import { OBJECTIVE_OPTIONS } from "./objective-options.js";
import { OPTIMIZER_OPTIONS } from "./optimizer-options.js";
import type { OptionValues } from "./option.js";
import { RUN_OPTIONS } from "./run-options.js";
import { TEXT_OPTIONS } from "./text-options.js";

/** Whatever has a default is left out freely. */
export const TRAINING_OPTIONS = {
  ...OPTIMIZER_OPTIONS,
  ...TEXT_OPTIONS,
  ...BATCH_OPTIONS,
  ...OBJECTIVE_OPTIONS,
  ...RUN_OPTIONS,
};

/** Values of {@link TRAINING_OPTIONS}. */
export type TrainingOptionValues = OptionValues<typeof TRAINING_OPTIONS>;
