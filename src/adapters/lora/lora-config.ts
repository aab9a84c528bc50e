// The options of LoRA: checked, with defaults, and under PEFT's names in files.

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

/** Options of {@link LoRAConfig}. */
export interface LoRAOptions extends LowRankOptions {
  /** rsLoRA: scales by alpha / √rank. Default false. @see arXiv:2312.03732 */
  useRslora?: boolean;
}

const fields = { ...LOW_RANK_FIELDS, useRslora: z.boolean().default(false) };
const TABLE: ConfigTable<typeof fields> = {
  fields,
  fileNames: lowRankFileNames({ alpha: "lora_alpha", dropout: "lora_dropout" }, { useRslora: "use_rslora" }),
};

/**
 * A complete, checked configuration; immutable.
 *
 * @see Hu et al. 2021, arXiv:2106.09685
 */
export class LoRAConfig extends LowRankConfig {
  readonly adapterType = "lora";
  readonly useRslora: boolean;

  /** @throws {ConfigError} That names the option, the rule and the value. */
  constructor(options: LoRAOptions = {}) {
    const parsed = parseOptions(TABLE, options, "LoRAConfig");
    super(parsed);
    this.useRslora = parsed.useRslora;
  }

  /**
   * Reads what {@link toJSON} gives; options that are left out get their defaults.
   *
   * @param source - The file, for messages.
   * @throws {ConfigError} If an option is unknown or its value invalid; it is named as in the file.
   */
  static fromJSON(json: unknown, source = "LoRAConfig.fromJSON"): LoRAConfig {
    return new LoRAConfig(optionsFromFile(TABLE, json, source));
  }

  /** The options under PEFT's names: `r`, `lora_alpha`, `lora_dropout`, `target_modules`, … */
  toJSON(): Record<string, unknown> {
    return optionsToFile(this, TABLE.fileNames);
  }

  /** A copy with some options replaced. */
  with(options: LoRAOptions): LoRAConfig {
    const own = Object.fromEntries(Object.keys(fields).map((name) => [name, this[name as keyof LoRAOptions]]));
    return new LoRAConfig({ ...own, ...options });
  }

  /** The factor on what is added to the layer at `path`: alpha / rank, or alpha / √rank. */
  override scaleOf(path: string): number {
    const rank = this.rankOf(path);
    return this.alphaOf(path) / (this.useRslora ? Math.sqrt(rank) : rank);
  }
}
