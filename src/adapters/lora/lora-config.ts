// The options of LoRA: checked, with defaults, and under PEFT's names in files.

import { z } from "zod";
import { ConfigError } from "../../errors.js";
import { parseConfig } from "../../storage/parse-config.js";
import type { AdapterConfig } from "../adapter.js";
import type { LayerMatching } from "../target-layers.js";

/** Options of {@link LoRAConfig}. */
export interface LoRAOptions {
  /** r, default 4. */
  rank?: number;
  /** What is added is scaled by alpha / rank. Default: the rank. */
  alpha?: number;
  /** Share of the layers' inputs set to 0 in training, in [0, 1). Default 0. */
  dropout?: number;
  /** Which linear layers and convolutions are adapted. Default `["to_q", "to_k", "to_v", "to_out.0"]`. */
  targetModules?: readonly string[];
  matching?: LayerMatching;
  /** rsLoRA: scales by alpha / √rank. Default false. @see arXiv:2312.03732 */
  useRslora?: boolean;
  /** Ranks of single layers, by path, where they differ. */
  rankPattern?: Readonly<Record<string, number>>;
  /** Alphas of single layers, by path, where they differ. */
  alphaPattern?: Readonly<Record<string, number>>;
}

const rank = z.int().min(1);
const alpha = z.number().positive();
const fields = {
  rank: rank.default(4),
  alpha: alpha.optional(),
  dropout: z.number().min(0).lt(1).default(0),
  targetModules: z.array(z.string().min(1)).min(1).default(["to_q", "to_k", "to_v", "to_out.0"]),
  matching: z.enum(["path", "name"]).default("path"),
  useRslora: z.boolean().default(false),
  rankPattern: z.record(z.string(), rank).default({}),
  // Files of others have layers with alpha 0 and below.
  alphaPattern: z.record(z.string(), z.number()).default({}),
};

type Field = keyof typeof fields;

/** PEFT's name of each option. */
const FILE_NAMES: Readonly<Record<Field, string>> = {
  rank: "r",
  alpha: "lora_alpha",
  dropout: "lora_dropout",
  targetModules: "target_modules",
  matching: "matching",
  useRslora: "use_rslora",
  rankPattern: "rank_pattern",
  alphaPattern: "alpha_pattern",
};
const FIELDS = Object.keys(fields) as Field[];

const schema = z.strictObject(fields);
const fileSchema = z.strictObject(Object.fromEntries(FIELDS.map((name) => [FILE_NAMES[name], fields[name]])));

/**
 * A complete, checked configuration; immutable.
 *
 * @see Hu et al. 2021, arXiv:2106.09685
 */
export class LoRAConfig implements AdapterConfig {
  readonly adapterType = "lora";
  readonly rank: number;
  readonly alpha: number;
  readonly dropout: number;
  readonly targetModules: readonly string[];
  readonly matching: LayerMatching;
  readonly useRslora: boolean;
  readonly rankPattern: Readonly<Record<string, number>>;
  readonly alphaPattern: Readonly<Record<string, number>>;

  /** @throws {ConfigError} That names the option, the rule and the value. */
  constructor(options: LoRAOptions = {}) {
    if (typeof options !== "object" || options === null || Array.isArray(options)) {
      throw new ConfigError(`LoRAConfig: the configuration must be an object; got ${JSON.stringify(options)}.`);
    }
    const parsed = parseConfig(schema, options, "LoRAConfig");
    this.rank = parsed.rank;
    this.alpha = parsed.alpha ?? parsed.rank;
    this.dropout = parsed.dropout;
    this.targetModules = Object.freeze([...parsed.targetModules]);
    this.matching = parsed.matching;
    this.useRslora = parsed.useRslora;
    this.rankPattern = Object.freeze({ ...parsed.rankPattern });
    this.alphaPattern = Object.freeze({ ...parsed.alphaPattern });
  }

  /**
   * Reads what {@link toJSON} gives; options that are left out get their defaults.
   *
   * @param source - The file, for messages.
   * @throws {ConfigError} If an option is unknown or its value invalid; it is named as in the file.
   */
  static fromJSON(json: unknown, source = "LoRAConfig.fromJSON"): LoRAConfig {
    if (typeof json !== "object" || json === null || Array.isArray(json)) {
      throw new ConfigError(`${source}: the configuration must be an object; got ${JSON.stringify(json)}.`);
    }
    const parsed = parseConfig(fileSchema, json, source) as Record<string, unknown>;
    return new LoRAConfig(Object.fromEntries(FIELDS.map((name) => [name, parsed[FILE_NAMES[name]]])));
  }

  /** The options under PEFT's names: `r`, `lora_alpha`, `lora_dropout`, `target_modules`, … */
  toJSON(): Record<string, unknown> {
    return Object.fromEntries(FIELDS.map((name) => [FILE_NAMES[name], this[name]]));
  }

  /** A copy with some options replaced. */
  with(options: LoRAOptions): LoRAConfig {
    return new LoRAConfig({ ...Object.fromEntries(FIELDS.map((name) => [name, this[name]])), ...options });
  }

  /** Rank of the layer at `path`. */
  rankOf(path: string): number {
    return this.rankPattern[path] ?? this.rank;
  }

  /** The factor on what is added to the layer at `path`: alpha / rank, or alpha / √rank. */
  scaleOf(path: string): number {
    const rank = this.rankOf(path);
    return (this.alphaPattern[path] ?? this.alpha) / (this.useRslora ? Math.sqrt(rank) : rank);
  }
}
