// FeRAConfig's options as flags.

import { adapterFormatOf, FeRAConfig } from "../adapters/index.js";
import { ConfigError } from "../errors.js";
import { choice, integer, list, number, type OptionValues } from "./option-specs.js";

const defaults = new FeRAConfig();

/** What a file of adapters without a configuration does not tell. */
export const UNTOLD_OPTIONS = {
  alpha: number("an expert's output is scaled by alpha / rank", { above: 0 }).withDefault(defaults.alpha),
  dropout: number("share of the experts' inputs set to 0 in training", { min: 0, below: 1 }).withDefault(
    defaults.dropout,
  ),
  routerTau: number("temperature of the router's softmax", { above: 0 }).withDefault(defaults.routerTau),
  feclWeight: number("weight of the consistency loss; 0 leaves it out", { min: 0 }).withDefault(defaults.feclWeight),
  bands: choice("frequency bands: the reference implementation's, or a complete partition", [
    "reference",
    "complete",
  ]).withDefault(defaults.bands),
  sigmaRule: choice("finest blur: min(H, W) / 128, or by the latent and --sigma-divisor", [
    "reference",
    "latent",
  ]).withDefault(defaults.sigma.rule),
  sigmaDivisor: number("divisor of min(H, W), 4 to 16, with --sigma-rule latent", { above: 0 }),
};

/** All of {@link FeRAConfig}. */
export const FERA_OPTIONS = {
  rank: integer("rank of each expert", { min: 1 }).withDefault(defaults.rank),
  numExperts: integer("number of experts", { min: 1, max: 1024 }).withDefault(defaults.numExperts),
  numBands: integer("number of frequency bands", { min: 1, max: 16 }).withDefault(defaults.numBands),
  ...UNTOLD_OPTIONS,
  targetModules: list("linear layers that get experts", "A,B").withDefault([...defaults.targetModules]),
  matching: choice("a target is the end of a layer's path, or its last component", ["path", "name"]).withDefault(
    defaults.matching,
  ),
};

/** What contradicts itself in the blur's options, if anything. */
export function sigmaProblem({ sigmaRule, sigmaDivisor }: SigmaOptions): string | undefined {
  if (sigmaRule === "latent" && sigmaDivisor === undefined) return "--sigma-rule latent needs --sigma-divisor.";
  if (sigmaRule === "reference" && sigmaDivisor !== undefined) return "--sigma-divisor needs --sigma-rule latent.";
  return undefined;
}

type SigmaOptions = Pick<OptionValues<typeof UNTOLD_OPTIONS>, "sigmaRule" | "sigmaDivisor">;

/** The configuration that checked options describe. */
export function toFeRAConfig(
  options: OptionValues<typeof UNTOLD_OPTIONS> & Partial<OptionValues<typeof FERA_OPTIONS>>,
) {
  const { rank, numExperts, numBands, alpha, dropout, routerTau, feclWeight, bands, targetModules, matching } = options;
  const { sigmaRule, sigmaDivisor } = options;
  return new FeRAConfig({
    rank,
    numExperts,
    numBands,
    alpha,
    dropout,
    routerTau,
    feclWeight,
    bands,
    targetModules,
    matching,
    sigma: sigmaRule === "latent" ? { rule: "latent", divisor: sigmaDivisor! } : { rule: "reference" },
  });
}

/** Why a path is none that an adapter can be written to, if so. */
export function adapterPathProblem(path: string): string | undefined {
  try {
    adapterFormatOf(path);
    return undefined;
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
}
