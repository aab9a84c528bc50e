// Which adapters a text encoder gets beside a denoiser's.

import {
  type AdapterConfig,
  adapterConfigFromJSON,
  FeRAConfig,
  LoRAConfig,
  TLoRAConfig,
} from "../../adapters/index.js";

/** The projections of attention, as diffusers' and PEFT's scripts name them. */
export const TEXT_ENCODER_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj"] as const;

/**
 * The configuration of text encoders' adapters: of the denoiser's kind, rank, alpha and dropout, on other layers.
 *
 * A prompt is encoded once, before there are latents or a timestep, so what follows these cannot act there: FeRA's place is
 * taken by a plain LoRA of its E experts' ranks together, E·r, with FeRA's alpha. That is what FeRA computes at uniform
 * gates: Σ_e (1/E) (alpha/r) B_e A_e = (alpha / (E r)) B A. T-LoRA's place is taken by a LoRA, all of its ranks acting.
 *
 * Ranks, alphas and exclusions by pattern are the denoiser's layers' alone.
 */
export function textEncoderConfig(config: AdapterConfig, targetModules: readonly string[]): AdapterConfig {
  if (config instanceof FeRAConfig) {
    const { rank, numExperts, alpha, dropout } = config;
    return new LoRAConfig({ rank: rank * numExperts, alpha, dropout, targetModules });
  }
  if (config instanceof TLoRAConfig) {
    const { rank, alpha, dropout } = config;
    return new LoRAConfig({ rank, alpha, dropout, targetModules });
  }
  const { exclude_modules: _, matching: _matching, ...options } = config.toJSON();
  const json = { ...options, target_modules: targetModules, rank_pattern: {}, alpha_pattern: {} };
  return adapterConfigFromJSON(config.adapterType, json, "text encoder");
}
