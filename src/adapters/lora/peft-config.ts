// What PEFT's configuration says of a LoRA: from a folder's adapter_config.json, or from the metadata of diffusers' files.

import { z } from "zod";
import { FormatError } from "../../errors.js";
import { parseConfig } from "../../storage/parse-config.js";

/** The settings of PEFT's LoraConfig that decide what an adapter computes. */
export interface PeftConfig {
  rank: number;
  alpha: number;
  dropout: number;
  useRslora: boolean;
  useDora: boolean;
  /** By a pattern of paths, see `patternValue`. */
  rankPattern: Readonly<Record<string, number>>;
  alphaPattern: Readonly<Record<string, number>>;
}

const schema = z.object({
  r: z.int().min(1).default(8),
  lora_alpha: z.number().default(8),
  lora_dropout: z.number().min(0).lt(1).default(0),
  use_rslora: z.boolean().default(false),
  use_dora: z.boolean().default(false),
  rank_pattern: z.record(z.string(), z.int().min(1)).nullish(),
  alpha_pattern: z.record(z.string(), z.number()).nullish(),
});

/** Keys that say nothing about what the adapter computes once its tensors are there. */
const HARMLESS = new Set([
  ...["peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "inference_mode", "revision"],
  ...["task_type", "target_modules", "exclude_modules", "layers_pattern", "layers_to_transform", "megatron_core"],
  ...["qalora_group_size", "ensure_weight_tying", "eva_config", "runtime_config"],
]);
/** Of `init_lora_weights`; other ways to begin (`pissa`, `olora`, `loftq`, …) also change the model's own weights. */
const HARMLESS_BEGINNINGS: readonly unknown[] = [true, false, "gaussian", "eva", "orthogonal"];

/**
 * Reads a LoraConfig's JSON.
 *
 * @throws {ConfigError} If a setting has a value that it cannot have.
 * @throws {FormatError} If it turns on what is not supported; the setting is named.
 */
export function parsePeftConfig(json: Readonly<Record<string, unknown>>, source: string): PeftConfig {
  const parsed = parseConfig(schema, json, source);
  for (const [key, value] of Object.entries(json)) {
    if (key in schema.shape || HARMLESS.has(key) || isUnset(value)) continue;
    if (key === "init_lora_weights" && HARMLESS_BEGINNINGS.includes(value)) continue;
    throw new FormatError(source, `it sets ${key} to ${JSON.stringify(value)}, which is not supported for LoRA.`);
  }
  return {
    rank: parsed.r,
    alpha: parsed.lora_alpha,
    dropout: parsed.lora_dropout,
    useRslora: parsed.use_rslora,
    useDora: parsed.use_dora,
    rankPattern: parsed.rank_pattern ?? {},
    alphaPattern: parsed.alpha_pattern ?? {},
  };
}

const isUnset = (value: unknown): boolean =>
  value === null ||
  value === false ||
  value === "none" ||
  (typeof value === "object" && Object.keys(value!).length === 0);
