// The adapters' options, and the configurations that they make.

import { checkAdapterPath } from "../../adapters/adapter-format.js";
import {
  ADAPTER_TYPES,
  type AdapterConfig,
  adapterFormatOf,
  FeRAConfig,
  LoRAConfig,
  ROUTER_NAMES,
} from "../../adapters/index.js";
import { ConfigError } from "../../errors.js";
import { choice, flag, integer, list, number, type OptionValues } from "./option.js";

const defaults = new FeRAConfig();

/** What a file of FeRA adapters without a configuration does not tell. */
export const UNTOLD_OPTIONS = {
  alpha: number("an expert's output is scaled by alpha / rank", { above: 0 }).withDefault(defaults.alpha),
  dropout: number("share of the adapted layers' inputs set to 0 in training", { min: 0, below: 1 }).withDefault(
    defaults.dropout,
  ),
  routerTau: number("temperature of the router's softmax", { above: 0 }).withDefault(defaults.routerTau),
  feclWeight: number("weight of the consistency loss; 0 leaves it out", { min: 0 }).withDefault(defaults.feclWeight),
  bands: choice("frequency bands: the reference implementation's, or a complete partition", [
    "reference",
    "complete",
  ]).withDefault(defaults.bands),
  sigmaRule: choice("finest blur: min(H, W) / 128, or min(H, W) / sigmaDivisor", ["reference", "latent"]).withDefault(
    defaults.sigma.rule,
  ),
  sigmaDivisor: number("divisor of min(H, W), 4 to 16, with the sigma rule latent", { above: 0 }),
};

const { alpha: _, dropout, ...FERA_ONLY_UNTOLD } = UNTOLD_OPTIONS;

/** What only FeRA has. */
const FERA_ONLY = {
  numExperts: integer("number of FeRA's experts", { min: 1, max: 1024 }).withDefault(defaults.numExperts),
  numBands: integer("number of frequency bands", { min: 1, max: 16 }).withDefault(defaults.numBands),
  router: choice(
    "what FeRA's gates come from: a network on the band energies (as published), the energies themselves, a network " +
      "on the timestep, or 1/E each",
    ROUTER_NAMES,
  ).withDefault(defaults.router),
  ...FERA_ONLY_UNTOLD,
};

/** What only LoRA has. */
const LORA_ONLY = {
  useRslora: flag("scale LoRA by alpha / √rank"),
};

/** Which adapter is trained, and how it is made. */
export const ADAPTER_OPTIONS = {
  adapter: choice("kind of adapter", ADAPTER_TYPES as readonly [string, ...string[]]).withDefault("fera"),
  rank: integer("rank of the adapter, with FeRA of each expert", { min: 1 }).withDefault(defaults.rank),
  alpha: number("what an adapter adds is scaled by alpha / rank; 1 for FeRA, the rank for LoRA", { above: 0 }),
  dropout,
  targetModules: list("layers that are adapted, by the end of their paths", "A,B").withDefault([
    ...defaults.targetModules,
  ]),
  matching: choice("a target is the end of a layer's path, or its last component", ["path", "name"]).withDefault(
    defaults.matching,
  ),
  ...FERA_ONLY,
  ...LORA_ONLY,
};

/** Values of {@link ADAPTER_OPTIONS}. */
export type AdapterOptionValues = OptionValues<typeof ADAPTER_OPTIONS>;

/** What contradicts itself in the blur's options, if anything; options are named by `name`. */
export function sigmaProblem(
  { sigmaRule, sigmaDivisor }: SigmaOptions,
  name: (option: string) => string = String,
): string | undefined {
  if (sigmaRule === "latent" && sigmaDivisor === undefined) {
    return `${name("sigmaRule")} latent needs ${name("sigmaDivisor")}.`;
  }
  if (sigmaRule === "reference" && sigmaDivisor !== undefined) {
    return `${name("sigmaDivisor")} needs ${name("sigmaRule")} latent.`;
  }
  return undefined;
}

type SigmaOptions = Pick<OptionValues<typeof UNTOLD_OPTIONS>, "sigmaRule" | "sigmaDivisor">;

/** FeRA's configuration that checked options describe. */
export function toFeRAConfig(options: Partial<OptionValues<typeof UNTOLD_OPTIONS>> & Partial<AdapterOptionValues>) {
  const { rank, numExperts, numBands, alpha, dropout, routerTau, feclWeight, bands, targetModules, matching } = options;
  const { router, sigmaRule, sigmaDivisor } = options;
  return new FeRAConfig({
    ...{ rank, numExperts, numBands, alpha, dropout, routerTau, feclWeight, bands, targetModules, matching, router },
    sigma: sigmaRule === "latent" ? { rule: "latent", divisor: sigmaDivisor! } : { rule: "reference" },
  });
}

/**
 * The configuration of whichever kind of adapter is asked for.
 *
 * @param name - How an option is named in messages.
 * @throws {ConfigError} If an option of another kind is set.
 */
export function toAdapterConfig(
  options: AdapterOptionValues,
  name: (option: string) => string = String,
): AdapterConfig {
  const { adapter, rank, alpha, dropout, targetModules, matching, useRslora } = options;
  const foreign = adapter === "fera" ? LORA_ONLY : FERA_ONLY;
  for (const [option, { defaultValue }] of Object.entries(foreign)) {
    const value = options[option as keyof AdapterOptionValues];
    if (JSON.stringify(value) === JSON.stringify(defaultValue)) continue;
    throw new ConfigError(`${name(option)}: the adapter "${adapter}" has no such option. Leave it out.`);
  }
  if (adapter === "fera") return toFeRAConfig(options);
  return new LoRAConfig({ rank, alpha, dropout, targetModules, matching, useRslora });
}

/** Why a path is none that an adapter can be written to, one of this configuration if given; undefined if it is one. */
export function adapterPathProblem(path: string, config?: AdapterConfig): string | undefined {
  try {
    if (config) checkAdapterPath(path, config);
    else adapterFormatOf(path);
    return undefined;
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
}
