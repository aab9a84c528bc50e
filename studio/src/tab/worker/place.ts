// Where the worker is: what the page told it once. And the model, loaded when it is first needed on a device.

import { StableDiffusionPipeline } from "../../../../src/pipelines/stable-diffusion/stable-diffusion-pipeline.js";
import { configureWebRuntime } from "../../../../src/runtime/web.js";
import "../../../../src/storage/web.js";
import type { TabDevice, TabPlace } from "../messages.js";

let current: TabPlace | undefined;

/** What the page told. */
export function place(): TabPlace {
  if (!current) throw new Error("The worker has not been told where it is.");
  return current;
}

export function openPlace(told: TabPlace): void {
  current = told;
  const ort = (name: string) => new URL(`ort/ort-wasm-simd-threaded.asyncify.${name}`, told.base).href;
  configureWebRuntime({ files: { wasm: ort("wasm"), mjs: ort("mjs") }, threads: told.threads });
}

/** Its id among `ModelChoice`s. */
export const EMBEDDED = "embedded";

/** Pixels of a side that the embedded model was trained for, and per latent pixel. */
export const MODEL_SIZE = 128;
export const LATENT_SCALE = 4;

/** The embedded model, anew for every use: what one does to it, such as adapters, does not meet the others. */
export async function loadModel(device: TabDevice): Promise<StableDiffusionPipeline> {
  try {
    return await StableDiffusionPipeline.fromPretrained(new URL("model", place().base).href, { device });
  } catch (cause) {
    throw new Error(
      `The model cannot be loaded: ${(cause as Error).message} Look whether the folder model/ lies beside the page.`,
      { cause },
    );
  }
}
