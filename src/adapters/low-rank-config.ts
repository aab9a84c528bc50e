// The options that LoRA and its relatives have in common: checked, with defaults, and under PEFT's names in files.

import { z } from "zod";
import { ConfigError, quoted } from "../errors.js";
import { parseConfig } from "../storage/parse-config.js";
import type { AdapterConfig } from "./adapter.js";
import { type PatternValues, patternValue } from "./layer-pattern.js";
import type { LayerChoice, LayerMatching } from "./target-layers.js";

/** Options of LoRA and its relatives. */
export interface LowRankOptions {
  /** r, default 4. */
  rank?: number;
  /** What is added is scaled by alpha / rank. Default: the rank. */
  alpha?: number;
  /** Share of the layers' inputs set to 0 in training, in [0, 1). Default 0. */
  dropout?: number;
  /**
   * Which linear layers and convolutions are adapted: a list of names; or a regular expression of whole paths; or
   * `"all-linear"`. Default: those usual for the model, `["to_q", "to_k", "to_v", "to_out.0"]` unless it says otherwise.
   */
  targetModules?: readonly string[] | string;
  /** Which of these are left as they are: a list of names, or a regular expression of whole paths. */
  excludeModules?: readonly string[] | string;
  matching?: LayerMatching;
  /** Ranks that differ, by path or by a regular expression for its end, as PEFT's rank_pattern. */
  rankPattern?: PatternValues;
  /** Alphas that differ, likewise. */
  alphaPattern?: PatternValues;
}

/** What is adapted where nothing is said, on models that say nothing either: the very list, told from equal ones that are given. */
export const USUAL_TARGETS: readonly string[] = Object.freeze(["to_q", "to_k", "to_v", "to_out.0"]);

const rank = z.int().min(1);
const layerNames = z.union([z.string().min(1), z.array(z.string().min(1)).min(1)]);

/** The fields of {@link LowRankOptions}. */
export const LOW_RANK_FIELDS = {
  rank: rank.default(4),
  alpha: z.number().positive().optional(),
  dropout: z.number().min(0).lt(1).default(0),
  targetModules: z.preprocess(
    (names) => (names === USUAL_TARGETS ? undefined : names),
    layerNames.default(() => USUAL_TARGETS as string[]),
  ),
  excludeModules: z.union([layerNames, z.tuple([])]).default([]),
  matching: z.enum(["path", "name"]).default("path"),
  rankPattern: z.record(z.string(), rank).default({}),
  // Files of others have layers with alpha 0 and below.
  alphaPattern: z.record(z.string(), z.number()).default({}),
};

/** PEFT's names of these fields, in the order in which files have them. @param own - Of the kind's own fields. */
export const lowRankFileNames = <Own extends Readonly<Record<string, string>>>(
  { alpha, dropout }: { alpha: string; dropout: string },
  own: Own,
) => ({
  ...{ rank: "r", alpha, dropout, targetModules: "target_modules", matching: "matching" },
  ...own,
  ...{ rankPattern: "rank_pattern", alphaPattern: "alpha_pattern", excludeModules: "exclude_modules" },
});

/** A kind's options: their fields, and each one's name in files. */
export interface ConfigTable<Fields extends z.ZodRawShape> {
  fields: Fields;
  fileNames: Readonly<Record<keyof Fields, string>>;
}

/**
 * Checks a kind's options.
 *
 * @throws {ConfigError} That names the option, the rule and the value.
 */
export function parseOptions<Fields extends z.ZodRawShape>(
  { fields }: ConfigTable<Fields>,
  options: unknown,
  where: string,
): z.output<z.ZodObject<Fields>> {
  return parseConfig(z.strictObject(fields), requireObject(options, where), where) as z.output<z.ZodObject<Fields>>;
}

/** Options from their names in files. @throws {ConfigError} If one is unknown or invalid; it is named as in the file. */
export function optionsFromFile<Fields extends z.ZodRawShape>(
  { fields, fileNames }: ConfigTable<Fields>,
  json: unknown,
  source: string,
): Record<string, unknown> {
  const names = Object.keys(fields);
  const schema = z.strictObject(Object.fromEntries(names.map((name) => [fileNames[name]!, fields[name]!])));
  const parsed = parseConfig(schema, requireObject(json, source), source) as Record<string, unknown>;
  return Object.fromEntries(names.map((name) => [name, parsed[fileNames[name]!]]));
}

/** Options under their names in files; what is not excluded is left out, as files had it before there was a choice. */
export function optionsToFile(config: object, fileNames: Readonly<Record<string, string>>): Record<string, unknown> {
  const values = config as Readonly<Record<string, unknown>>;
  const written = Object.entries(fileNames).filter(
    ([name]) => name !== "excludeModules" || (values[name] as string | readonly string[]).length > 0,
  );
  return Object.fromEntries(written.map(([name, fileName]) => [fileName, values[name]]));
}

/** What LoRA and its relatives have in common. Immutable. */
export abstract class LowRankConfig implements AdapterConfig, LayerChoice {
  abstract readonly adapterType: string;
  readonly rank: number;
  readonly alpha: number;
  readonly dropout: number;
  readonly targetModules: readonly string[] | string;
  readonly excludeModules: readonly string[] | string;
  readonly matching: LayerMatching;
  readonly rankPattern: PatternValues;
  readonly alphaPattern: PatternValues;

  protected constructor(parsed: z.output<z.ZodObject<typeof LOW_RANK_FIELDS>>) {
    this.rank = parsed.rank;
    this.alpha = parsed.alpha ?? parsed.rank;
    this.dropout = parsed.dropout;
    this.targetModules = frozenNames(parsed.targetModules);
    this.excludeModules = frozenNames(parsed.excludeModules);
    this.matching = parsed.matching;
    this.rankPattern = Object.freeze({ ...parsed.rankPattern });
    this.alphaPattern = Object.freeze({ ...parsed.alphaPattern });
  }

  abstract toJSON(): Record<string, unknown>;

  /** Rank of the layer at `path`. */
  rankOf(path: string): number {
    return patternValue(this.rankPattern, path, "rankPattern") ?? this.rank;
  }

  /** Alpha of the layer at `path`. */
  alphaOf(path: string): number {
    return patternValue(this.alphaPattern, path, "alphaPattern") ?? this.alpha;
  }

  /** The factor on what is added to the layer at `path`: alpha / rank. */
  scaleOf(path: string): number {
    return this.alphaOf(path) / this.rankOf(path);
  }
}

/** A pattern as it is, a list as a copy that nobody can change. */
export const frozenNames = (names: readonly string[] | string): readonly string[] | string =>
  typeof names === "string" || names === USUAL_TARGETS ? names : Object.freeze([...names]);

function requireObject(value: unknown, source: string): object {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  throw new ConfigError(`${source}: the configuration must be an object; got ${quoted(value)}.`);
}
