// The batch of a UNet's golden values.

import { readSafetensors } from "../../src/storage/index.js";

/** Inputs and target from `expected.safetensors` in a folder of golden values. */
export async function referenceBatch(folder: string) {
  const { tensors } = await readSafetensors(`${folder}/expected.safetensors`);
  const value = (name: string) => tensors.get(name)!;
  return {
    latents: value("latents"),
    timesteps: value("timesteps"),
    encoderHiddenStates: value("encoder_hidden_states"),
    target: value("target"),
  };
}
