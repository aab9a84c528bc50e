// The options of LoKr: checked, with defaults, and under PEFT's names in files (LyCORIS's where PEFT has none).

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

/** Options of {@link LoKrConfig}; names are LyCORIS's. */
export interface LoKrOptions extends LowRankOptions {
  /** What the smaller Kronecker factor's sides come near to; −1 (default): as near to a square as there is. */
  factor?: number;
  /** Whether the smaller factor is a low-rank product too, where the rank is below half its side. Default false. */
  decomposeBoth?: boolean;
  /** Whether the larger factor is a whole matrix whatever the rank. Default false: from half its side on. */
  fullMatrix?: boolean;
  /** Whether kernels are split off the low-rank product (Tucker's decomposition). Default false. */
  useTucker?: boolean;
}

const fields = {
  ...LOW_RANK_FIELDS,
  factor: z
    .int()
    .refine((value) => value === -1 || value >= 1, { error: "must be -1 or 1 or more" })
    .default(-1),
  decomposeBoth: z.boolean().default(false),
  fullMatrix: z.boolean().default(false),
  useTucker: z.boolean().default(false),
};
const TABLE: ConfigTable<typeof fields> = {
  fields,
  fileNames: lowRankFileNames(
    { alpha: "alpha", dropout: "dropout" },
    {
      factor: "decompose_factor",
      decomposeBoth: "decompose_both",
      fullMatrix: "full_matrix",
      useTucker: "use_effective_conv2d",
    },
  ),
};

/**
 * A complete, checked configuration; immutable.
 *
 * @see Yeh et al. 2023, arXiv:2309.14859
 */
export class LoKrConfig extends LowRankConfig {
  readonly adapterType = "lokr";
  readonly factor: number;
  readonly decomposeBoth: boolean;
  readonly fullMatrix: boolean;
  readonly useTucker: boolean;

  /** @throws {ConfigError} That names the option, the rule and the value. */
  constructor(options: LoKrOptions = {}) {
    const parsed = parseOptions(TABLE, options, "LoKrConfig");
    super(parsed);
    this.factor = parsed.factor;
    this.decomposeBoth = parsed.decomposeBoth;
    this.fullMatrix = parsed.fullMatrix;
    this.useTucker = parsed.useTucker;
  }

  /** Reads what {@link toJSON} gives. @throws {ConfigError} If an option is unknown or its value invalid. */
  static fromJSON(json: unknown, source = "LoKrConfig.fromJSON"): LoKrConfig {
    return new LoKrConfig(optionsFromFile(TABLE, json, source));
  }

  /** The options under PEFT's names: `r`, `alpha`, `decompose_factor`, … */
  toJSON(): Record<string, unknown> {
    return optionsToFile(this, TABLE.fileNames);
  }
}
