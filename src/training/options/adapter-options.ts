// The adapters' options, and the configurations that they make.

import { checkAdapterPath } from "../../adapters/adapter-format.js";
import {
  ADAPTER_TYPES,
  type AdapterConfig,
  adapterFormatOf,
  DoRAConfig,
  FeRAConfig,
  LoHaConfig,
  LoKrConfig,
  LoRAConfig,
  ROUTER_NAMES,
  TLoRAConfig,
} from "../../adapters/index.js";
import { ConfigError, quoted } from "../../errors.js";
import {
  choice,
  flag,
  integer,
  list,
  number,
  type OptionSpecs,
  type OptionValues,
  patternNumbers,
  text,
} from "./option.js";

const defaults = new FeRAConfig();
const feclWeight = number("weight of the consistency loss; 0 leaves it out", { min: 0 });

/** What a file of FeRA adapters without a configuration does not tell. */
export const UNTOLD_OPTIONS = {
  alpha: number("an expert's output is scaled by alpha / rank", { above: 0 }).withDefault(defaults.alpha),
  dropout: number("share of the adapted layers' inputs set to 0 in training", { min: 0, below: 1 }).withDefault(
    defaults.dropout,
  ),
  routerTau: number("temperature of the router's softmax", { above: 0 }).withDefault(defaults.routerTau),
  feclWeight: feclWeight.withDefault(defaults.feclWeight),
  bands: choice("frequency bands: the reference implementation's, or a complete partition", [
    "reference",
    "complete",
  ]).withDefault(defaults.bands),
  sigmaRule: choice("finest blur: min(H, W) / 128, or min(H, W) / sigmaDivisor", ["reference", "latent"]).withDefault(
    defaults.sigma.rule,
  ),
  sigmaDivisor: number(
    "divisor of min(H, W) with the sigma rule latent: twice the side of small latents blurs by half a pixel, as reference does at 64×64",
    { above: 0 },
  ),
};

const { alpha: _, dropout, ...FERA_ONLY_UNTOLD } = UNTOLD_OPTIONS;

/** What only FeRA has. */
const FERA_ONLY = {
  numExperts: integer("number of FeRA's experts", { min: 1, max: 1024 }).withDefault(defaults.numExperts),
  numBands: integer("number of frequency bands", { min: 1, max: 16 }).withDefault(defaults.numBands),
  router: choice(
    "what FeRA's gates come from: a network on the band energies (as published), the energies themselves, a network " +
      "on the timestep, 1/E each, a network on what the energies tell beyond the timestep, a network that corrects " +
      "the energies, or a network with an output for each block of a UNet",
    ROUTER_NAMES,
  ).withDefault(defaults.router),
  sharedDown: flag("one lora_down for all experts of a layer, with FeRA"),
  balanceWeight: number("weight of a loss that wants FeRA's experts open alike on average; 0 leaves it out", {
    min: 0,
  }).withDefault(defaults.balanceWeight),
  topExperts: integer("only so many of FeRA's gates stay, the largest; 0 keeps all, and none saves time", {
    min: 0,
  }).withDefault(defaults.topExperts),
  ...FERA_ONLY_UNTOLD,
  // Published with 0.1. It costs a forward pass of the frozen model in every step, and lowered no error (docs/evidence.md).
  feclWeight: feclWeight.withDefault(0),
};

/** What all kinds but FeRA have. */
const LOW_RANK = {
  rankPattern: patternNumbers(
    "rank of the layers whose path, or the end of it behind a dot, is PATTERN (a regular expression; PEFT's rank_pattern)",
  ),
  alphaPattern: patternNumbers("alpha of layers, likewise"),
};
const RSLORA = { useRslora: flag("scale LoRA and DoRA by alpha / √rank") };
const TUCKER = {
  useTucker: flag("LoKr and LoHa of convolutions by Tucker's decomposition (PEFT's use_effective_conv2d)"),
};
const LOKR_ONLY = {
  factor: integer("LoKr's smaller factor: what its sides come near to; -1 for squares (PEFT's decompose_factor)", {
    min: -1,
  }).withDefault(-1),
  decomposeBoth: flag("with LoKr, the smaller factor is a low-rank product too"),
  fullMatrix: flag("with LoKr, the larger factor is a whole matrix whatever the rank"),
};
const T_LORA_ONLY = {
  minRank: integer("ranks that act at the noisiest timestep, with T-LoRA", { min: 1 }).withDefault(1),
  maskPower: number("above 1, T-LoRA's ranks come in later (alpha_rank_scale)", { above: 0 }).withDefault(1),
};

/** What each kind has beside the options that all have. */
const OWN_OPTIONS: Readonly<Record<string, OptionSpecs>> = {
  fera: FERA_ONLY,
  lora: { ...LOW_RANK, ...RSLORA },
  dora: { ...LOW_RANK, ...RSLORA },
  lokr: { ...LOW_RANK, ...LOKR_ONLY, ...TUCKER },
  loha: { ...LOW_RANK, ...TUCKER },
  "t-lora": { ...LOW_RANK, ...T_LORA_ONLY },
};

/** The kinds of adapter that have an option; undefined for one that all have. */
export function kindsWith(option: string): string[] | undefined {
  const kinds = Object.keys(OWN_OPTIONS).filter((kind) => option in OWN_OPTIONS[kind]!);
  return kinds.length === 0 ? undefined : kinds;
}

/** Which adapter is trained, and how it is made. */
export const ADAPTER_OPTIONS = {
  adapter: choice(
    "kind of adapter; a lora of the ranks of FeRA's experts together did as well in fera evidence, and other programs read it",
    ADAPTER_TYPES as readonly [string, ...string[]],
  ).withDefault("fera"),
  rank: integer("rank of the adapter, with FeRA of each expert", { min: 1 }).withDefault(defaults.rank),
  alpha: number(
    "what an adapter adds is scaled by alpha / rank; by default the rank, with FeRA those of all experts together",
    {
      above: 0,
    },
  ),
  dropout,
  targetModules: list(
    "layers that are adapted, by the end of their paths; or all-linear. The default stands for those usual for the model",
    "A,B",
  ).withDefault([...defaults.targetModules]),
  targetPattern: text("in place of that: a regular expression that is a layer's whole path", "REGEX"),
  excludeModules: list("layers that are not adapted though they are targets, by the end of their paths", "A,B"),
  excludePattern: text("in place of that: a regular expression that is a layer's whole path", "REGEX"),
  matching: choice("a target is the end of a layer's path, or its last component", ["path", "name"]).withDefault(
    defaults.matching,
  ),
  ...FERA_ONLY,
  ...LOW_RANK,
  ...RSLORA,
  ...LOKR_ONLY,
  ...TUCKER,
  ...T_LORA_ONLY,
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
export function toFeRAConfig(
  options: Partial<OptionValues<typeof UNTOLD_OPTIONS>> & Partial<AdapterOptionValues>,
  name: (option: string) => string = String,
) {
  const { rank, numExperts, numBands, alpha, dropout, routerTau, feclWeight, bands, matching } = options;
  const { router, sigmaRule, sigmaDivisor, sharedDown, balanceWeight, topExperts } = options;
  return new FeRAConfig({
    ...{ rank, numExperts, numBands, alpha, dropout, routerTau, feclWeight, bands, matching, router },
    ...{ sharedDown, balanceWeight, topExperts },
    ...layersOf(options, name),
    sigma: sigmaRule === "latent" ? { rule: "latent", divisor: sigmaDivisor! } : { rule: "reference" },
  });
}

/**
 * The configuration of whichever kind of adapter is asked for.
 *
 * @param name - How an option is named in messages.
 * @throws {ConfigError} If an option of another kind is set, or two options contradict each other.
 */
export function toAdapterConfig(
  options: AdapterOptionValues,
  name: (option: string) => string = String,
): AdapterConfig {
  const { adapter, rank, alpha, dropout, matching, useRslora, factor, useTucker } = options;
  const own = OWN_OPTIONS[adapter]!;
  const ofSomeKind: OptionSpecs = Object.assign({}, ...Object.values(OWN_OPTIONS));
  for (const [option, { defaultValue }] of Object.entries(ofSomeKind)) {
    const value = options[option as keyof AdapterOptionValues];
    if (option in own || JSON.stringify(value) === JSON.stringify(defaultValue)) continue;
    throw new ConfigError(`${name(option)}: the adapter "${adapter}" has no such option. Leave it out.`);
  }
  // Gates sum to 1, so that this is the scale that other kinds have by default. Published with 1.
  if (adapter === "fera") return toFeRAConfig({ ...options, alpha: alpha ?? rank * options.numExperts }, name);
  const common = {
    ...{ rank, alpha, dropout, matching, ...layersOf(options, name) },
    rankPattern: numbersByPattern(name("rankPattern"), options.rankPattern),
    alphaPattern: numbersByPattern(name("alphaPattern"), options.alphaPattern),
  };
  switch (adapter) {
    case "dora":
      return new DoRAConfig({ ...common, useRslora });
    case "lokr": {
      const { decomposeBoth, fullMatrix } = options;
      return new LoKrConfig({ ...common, factor, decomposeBoth, fullMatrix, useTucker });
    }
    case "loha":
      return new LoHaConfig({ ...common, useTucker });
    case "t-lora":
      return new TLoRAConfig({ ...common, minRank: options.minRank, maskPower: options.maskPower });
    default:
      return new LoRAConfig({ ...common, useRslora });
  }
}

/** Which layers: a list or a pattern each. @throws {ConfigError} If both are given. */
function layersOf(options: Partial<AdapterOptionValues>, name: (option: string) => string) {
  const { targetModules, targetPattern, excludeModules, excludePattern } = options;
  const isUsual = JSON.stringify(targetModules) === JSON.stringify(ADAPTER_OPTIONS.targetModules.defaultValue);
  const both = (list: string, pattern: string): never => {
    throw new ConfigError(`${name(pattern)} stands in place of ${name(list)}; give one of them.`);
  };
  if (targetPattern !== undefined && targetModules && !isUsual) both("targetModules", "targetPattern");
  if (excludePattern !== undefined && excludeModules) both("excludeModules", "excludePattern");
  // Left out, the model says which.
  const targets = isUsual ? undefined : targetModules;
  return { targetModules: targetPattern ?? targets, excludeModules: excludePattern ?? excludeModules };
}

/** PATTERN=NUMBER texts as a record. @throws {ConfigError} If a pattern is given twice. */
function numbersByPattern(where: string, texts: readonly string[] | undefined): Record<string, number> | undefined {
  if (!texts) return undefined;
  const values = new Map<string, number>();
  for (const text of texts) {
    const split = text.lastIndexOf("=");
    const pattern = text.slice(0, split).trim();
    if (values.has(pattern)) throw new ConfigError(`${where}: ${quoted(pattern)} is given twice.`);
    values.set(pattern, Number(text.slice(split + 1)));
  }
  return Object.fromEntries(values);
}

/**
 * Why a path is none that an adapter can be written to, one of this configuration if given; undefined if it is one.
 *
 * @param hasTextEncoders - Whether it has parts for text encoders.
 */
export function adapterPathProblem(path: string, config?: AdapterConfig, hasTextEncoders = false): string | undefined {
  try {
    if (config) checkAdapterPath(path, config, hasTextEncoders);
    else adapterFormatOf(path);
    return undefined;
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
}
