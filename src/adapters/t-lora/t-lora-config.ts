// The options of T-LoRA: LoRA's, and how many ranks act at a timestep.

import { z } from "zod";
import { ConfigError } from "../../errors.js";
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

/** Options of {@link TLoRAConfig}. */
export interface TLoRAOptions extends LowRankOptions {
  /** Ranks that act at the noisiest timestep, at most `rank`. Default 1. */
  minRank?: number;
  /** a in the mask: above 1, ranks come in later. Default 1. */
  maskPower?: number;
}

const fields = {
  ...LOW_RANK_FIELDS,
  minRank: z.int().min(1).default(1),
  maskPower: z.number().positive().default(1),
};
const TABLE: ConfigTable<typeof fields> = {
  fields,
  fileNames: lowRankFileNames(
    { alpha: "lora_alpha", dropout: "lora_dropout" },
    { minRank: "min_rank", maskPower: "alpha_rank_scale" },
  ),
};

/**
 * A complete, checked configuration; immutable.
 *
 * @see arXiv:2507.05964
 */
export class TLoRAConfig extends LowRankConfig {
  readonly adapterType = "t-lora";
  readonly minRank: number;
  readonly maskPower: number;

  /** @throws {ConfigError} That names the option, the rule and the value. */
  constructor(options: TLoRAOptions = {}) {
    const parsed = parseOptions(TABLE, options, "TLoRAConfig");
    super(parsed);
    this.minRank = parsed.minRank;
    this.maskPower = parsed.maskPower;
    const smallest = Math.min(this.rank, ...Object.values(this.rankPattern));
    if (this.minRank > smallest) {
      throw new ConfigError(`TLoRAConfig: minRank must be ${smallest} or less, the rank; got ${this.minRank}.`);
    }
  }

  /** Reads what {@link toJSON} gives. @throws {ConfigError} If an option is unknown or its value invalid. */
  static fromJSON(json: unknown, source = "TLoRAConfig.fromJSON"): TLoRAConfig {
    return new TLoRAConfig(optionsFromFile(TABLE, json, source));
  }

  /** The options under their names in files: PEFT's, `min_rank`, and `alpha_rank_scale` as the paper's code has it. */
  toJSON(): Record<string, unknown> {
    return optionsToFile(this, TABLE.fileNames);
  }
}
