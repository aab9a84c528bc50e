// The options of FeRA: checked, with defaults, and under the names that adapter files use.

import { z } from "zod";
import { ConfigError, quoted } from "../../errors.js";
import { parseConfig } from "../../storage/parse-config.js";
import type { AdapterConfig } from "../adapter.js";
import { frozenNames, LOW_RANK_FIELDS } from "../low-rank-config.js";
import type { LayerMatching } from "../target-layers.js";

/**
 * The blur of the finest level, sigma_0; level k blurs with sigma_0 · 2^k.
 *
 * - `reference`: sigma_0 = min(H, W) / 128.
 * - `latent`: sigma_0 = min(H, W) / divisor. On small latents the reference's rule hardly blurs, so that the finest bands are empty;
 *   a divisor of 2 · min(H, W) blurs by half a pixel, which is what the reference's has at 64×64.
 */
export type SigmaRule = { rule: "reference" } | { rule: "latent"; divisor: number };

/**
 * Which bands are kept, low to high.
 *
 * - `reference`: the finest band, z − G_1, is dropped.
 * - `complete`: a partition; the bands sum to the latent.
 */
export type BandDefinition = "reference" | "complete";

/** What the gates come from; each is a file of `routers/`. */
export const ROUTER_NAMES = [
  ...(["energies", "gates-are-energies", "timestep", "uniform"] as const),
  ...(["relative-energies", "from-energies", "energies-by-block"] as const),
] as const;
export type RouterName = (typeof ROUTER_NAMES)[number];

/** Options of {@link FeRAConfig}. */
export interface FeRAOptions {
  /** Rank r of each expert. Default 4. */
  rank?: number;
  /** An expert's output is scaled by alpha / rank. Default 1. */
  alpha?: number;
  /** Share of the experts' inputs set to 0 in training, in [0, 1). Default 0. */
  dropout?: number;
  /** K, default 3. */
  numBands?: number;
  /** E, 1024 at most, default 3. */
  numExperts?: number;
  /** Temperature of the router's softmax. Default 0.7. */
  routerTau?: number;
  /**
   * Which linear layers and convolutions get experts: a list of names; or a regular expression of whole paths; or
   * `"all-linear"`. Default `["to_q", "to_k", "to_v", "to_out.0"]`.
   */
  targetModules?: readonly string[] | string;
  /** Which of these get none: a list of names, or a regular expression of whole paths. */
  excludeModules?: readonly string[] | string;
  /** Weight of the consistency loss; 0 leaves it out. Default 0.1. */
  feclWeight?: number;
  bands?: BandDefinition;
  sigma?: SigmaRule;
  matching?: LayerMatching;
  /**
   * What gives the gates: the published network on the energies, the energies themselves (as many experts as bands), the
   * same network on the timestep, 1/E each, the network on what the energies tell beyond the timestep, the network as a
   * correction of the energies (as many experts as bands), or the network with an output of its own for each block of a UNet.
   * Default `energies`.
   */
  router?: RouterName;
  /** Whether a layer's experts have one `lora_down` together, as in HydraLoRA (arXiv 2404.19245). Default false. */
  sharedDown?: boolean;
  /**
   * Weight of the loss E · Σ_k p_k² − 1, p_k the mean gate of expert k over a batch (over the part of it that one copy of the
   * step computes): 0 where all experts are open alike on average. Default 0.
   */
  balanceWeight?: number;
  /** Only so many of the gates stay, the largest, divided by their sum; 0 keeps all. It saves no time. Default 0. */
  topExperts?: number;
}

const count = z.int().min(1);
const MAX_BANDS = 16;
const MAX_EXPERTS = 1024;

const fields = {
  rank: count.default(4),
  alpha: z.number().positive().default(1),
  dropout: z.number().min(0).lt(1).default(0),
  numBands: count.max(MAX_BANDS).default(3),
  numExperts: count.max(MAX_EXPERTS).default(3),
  routerTau: z.number().positive().default(0.7),
  targetModules: LOW_RANK_FIELDS.targetModules,
  feclWeight: z.number().min(0).default(0.1),
  bands: z.enum(["reference", "complete"]).default("reference"),
  sigma: z
    .discriminatedUnion("rule", [
      z.strictObject({ rule: z.literal("reference") }),
      z.strictObject({ rule: z.literal("latent"), divisor: z.number().positive() }),
    ])
    .default({ rule: "reference" }),
  matching: z.enum(["path", "name"]).default("path"),
  router: z.enum(ROUTER_NAMES).default("energies"),
  sharedDown: z.boolean().default(false),
  balanceWeight: z.number().min(0).default(0),
  topExperts: z.int().min(0).default(0),
  excludeModules: LOW_RANK_FIELDS.excludeModules,
};

type Field = keyof typeof fields;

const FIELDS = Object.keys(fields) as Field[];
const snakeCase = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

const schema = z.strictObject(fields);
const fileSchema = z.strictObject(Object.fromEntries(FIELDS.map((name) => [snakeCase(name), fields[name]])));

/**
 * A complete, checked configuration; immutable.
 *
 * @see arXiv:2511.17979
 */
export class FeRAConfig implements AdapterConfig {
  readonly adapterType = "fera";
  readonly rank: number;
  readonly alpha: number;
  readonly dropout: number;
  readonly numBands: number;
  readonly numExperts: number;
  readonly routerTau: number;
  readonly targetModules: readonly string[] | string;
  readonly excludeModules: readonly string[] | string;
  readonly feclWeight: number;
  readonly bands: BandDefinition;
  readonly sigma: SigmaRule;
  readonly matching: LayerMatching;
  readonly router: RouterName;
  readonly sharedDown: boolean;
  readonly balanceWeight: number;
  readonly topExperts: number;

  /** @throws {ConfigError} That names the option, the rule and the value. */
  constructor(options: FeRAOptions = {}) {
    const parsed = parseConfig(schema, requireObject(options, "FeRAConfig"), "FeRAConfig");
    this.rank = parsed.rank;
    this.alpha = parsed.alpha;
    this.dropout = parsed.dropout;
    this.numBands = parsed.numBands;
    this.numExperts = parsed.numExperts;
    this.routerTau = parsed.routerTau;
    this.targetModules = frozenNames(parsed.targetModules);
    this.excludeModules = frozenNames(parsed.excludeModules);
    this.feclWeight = parsed.feclWeight;
    this.bands = parsed.bands;
    this.sigma = Object.freeze(parsed.sigma);
    this.matching = parsed.matching;
    this.router = parsed.router;
    this.sharedDown = parsed.sharedDown;
    this.balanceWeight = parsed.balanceWeight;
    this.topExperts = parsed.topExperts;
    if (this.topExperts > this.numExperts) {
      throw new ConfigError(
        `FeRAConfig: topExperts must be at most numExperts; got ${this.topExperts} of ${this.numExperts} experts.`,
      );
    }
  }

  /** The reference implementation's behaviour to the letter: its bands, its blur, its layer matching. */
  static reference(options: Omit<FeRAOptions, "bands" | "sigma" | "matching"> = {}): FeRAConfig {
    return new FeRAConfig({ ...options, bands: "reference", sigma: { rule: "reference" }, matching: "name" });
  }

  /**
   * Reads what {@link toJSON} gives; options that are left out get their defaults.
   *
   * @param source - The file, for messages.
   * @throws {ConfigError} If an option is unknown or its value invalid; it is named as in the file.
   */
  static fromJSON(json: unknown, source = "FeRAConfig.fromJSON"): FeRAConfig {
    const parsed = parseConfig(fileSchema, requireObject(json, source), source) as Record<string, unknown>;
    return new FeRAConfig(Object.fromEntries(FIELDS.map((name) => [name, parsed[snakeCase(name)]])));
  }

  /**
   * The options under their names in files: `rank`, `num_bands`, `router_tau`, `target_modules`, …; the published router,
   * and what is not shared, excluded, balanced or left closed, are left out, so that files that any version reads stay as they are.
   */
  toJSON(): Record<string, unknown> {
    const isUsual = (name: Field): boolean =>
      (name === "router" && this.router === "energies") ||
      (name === "sharedDown" && !this.sharedDown) ||
      (name === "balanceWeight" && this.balanceWeight === 0) ||
      (name === "topExperts" && this.topExperts === 0) ||
      (name === "excludeModules" && this.excludeModules.length === 0);
    const written = FIELDS.filter((name) => !isUsual(name));
    return Object.fromEntries(written.map((name) => [snakeCase(name), this[name]]));
  }

  /** A copy with some options replaced. */
  with(options: FeRAOptions): FeRAConfig {
    return new FeRAConfig({ ...Object.fromEntries(FIELDS.map((name) => [name, this[name]])), ...options });
  }
}

function requireObject(value: unknown, source: string): object {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  throw new ConfigError(`${source}: the configuration must be an object; got ${quoted(value)}.`);
}
