// The options of LoHa: checked, with defaults, and under PEFT's names in files.

import { z } from "zod";
import {
  type ConfigTable,
  LOW_RANK_FIELDS,
  LowRankConfig,
  type LowRankOptions,
  lowRankFileNames,
  optionsFromFile,
  optionsToFile,
  parseOptions,
} from "../low-rank-config.js";

/** Options of {@link LoHaConfig}; names are LyCORIS's. */
export interface LoHaOptions extends LowRankOptions {
  /** Whether kernels are split off the low-rank products (Tucker's decomposition). Default false. */
  useTucker?: boolean;
}

const fields = { ...LOW_RANK_FIELDS, useTucker: z.boolean().default(false) };
const TABLE: ConfigTable<typeof fields> = {
  fields,
  fileNames: lowRankFileNames({ alpha: "alpha", dropout: "dropout" }, { useTucker: "use_effective_conv2d" }),
};

/**
 * A complete, checked configuration; immutable.
 *
 * @see Hyeon-Woo et al. 2021, arXiv:2108.06098; Yeh et al. 2023, arXiv:2309.14859
 */
export class LoHaConfig extends LowRankConfig {
  readonly adapterType = "loha";
  readonly useTucker: boolean;

  /** @throws {ConfigError} That names the option, the rule and the value. */
  constructor(options: LoHaOptions = {}) {
    const parsed = parseOptions(TABLE, options, "LoHaConfig");
    super(parsed);
    this.useTucker = parsed.useTucker;
  }

  /** Reads what {@link toJSON} gives. @throws {ConfigError} If an option is unknown or its value invalid. */
  static fromJSON(json: unknown, source = "LoHaConfig.fromJSON"): LoHaConfig {
    return new LoHaConfig(optionsFromFile(TABLE, json, source));
  }

  /** The options under PEFT's names: `r`, `alpha`, … */
  toJSON(): Record<string, unknown> {
    return optionsToFile(this, TABLE.fileNames);
  }
}
