// An adapter in a folder: the names of its files, which PEFT and diffusers gave them.

import { writeFileAt } from "../storage/storage.js";

/** The two files of an adapter in a folder, named as PEFT does. */
export const FOLDER_CONFIG = "adapter_config.json";
export const FOLDER_WEIGHTS = "adapter_model.safetensors";
/** The file of a plain LoRA in a folder, named as diffusers does. */
export const DIFFUSERS_WEIGHTS = "pytorch_lora_weights.safetensors";

/**
 * Writes the two files; the configuration last, so that a folder with one is whole.
 *
 * @throws {FormatError} If one cannot be written.
 */
export async function writeAdapterFolder(
  path: string,
  weights: Uint8Array,
  config: Record<string, unknown>,
): Promise<void> {
  await writeFileAt(`${path}/${FOLDER_WEIGHTS}`, weights, { makeFolder: true });
  const json = `${JSON.stringify(config, undefined, 2)}\n`;
  await writeFileAt(`${path}/${FOLDER_CONFIG}`, new TextEncoder().encode(json), { makeFolder: true });
}
