// Plain LoRA in the weights of a pipeline's models, and out of them again.

import { AdapterModel } from "../adapters/adapter-model.js";
import { type FusableModel, fusedWeights } from "../adapters/lora/fuse-lora.js";
import { ConfigError } from "../errors.js";
import type { NamedAdapter } from "./adapter-set.js";

/** An adapter, and how strongly it is to act. */
export interface ScaledAdapter extends NamedAdapter {
  name: string;
  scale: number;
}

/**
 * Adds adapters to the weights of the models that they are on.
 *
 * @param models - The denoiser, then the text encoders.
 * @returns Puts the weights back as they were.
 * @throws {ConfigError} If an adapter is of a kind that no weight can hold; nothing is changed then.
 */
export async function fuseInto(
  models: readonly object[],
  adapters: readonly ScaledAdapter[],
): Promise<() => Promise<void>> {
  const changes: { model: FusableModel; before: FusableModel["weights"]; after: FusableModel["weights"] }[] = [];
  for (const [number, model] of models.entries()) {
    const own = adapters.flatMap(({ name, scale, denoiser, textEncoders }) => {
      const part = number === 0 ? denoiser : textEncoders.get(number - 1);
      return part ? [{ ...(part instanceof AdapterModel ? part.attachable : part), name, scale }] : [];
    });
    if (own.length === 0) continue;
    const fused = fusable(model);
    changes.push({ model: fused, before: fused.weights, after: await fusedWeights(fused, own) });
  }
  // All of them are made before any is put in place.
  for (const { model, after } of changes) await model.replaceWeights(after);
  return async () => {
    for (const { model, before } of changes) await model.replaceWeights(before);
  };
}

function fusable(model: object): FusableModel {
  if ("replaceWeights" in model) return model as FusableModel;
  throw new ConfigError(`fuseLora: the weights of a ${model.constructor.name} cannot be replaced.`);
}
