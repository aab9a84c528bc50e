// One batch and one set of adapters in a file that both sides read, so that they compute the same step and their losses
// can be compared.

import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { FeRAConfig, FeRAModel } from "../src/adapters/index.js";
import type { UNet2DConditionModel } from "../src/models/index.js";
import type { UNetShape } from "../src/models/unet-2d-condition/unet-2d-condition.js";
import { readSafetensors, writeSafetensors } from "../src/storage/index.js";
import { Generator, randint, randn } from "../src/tensor/random.js";
import type { Tensor } from "../src/tensor/tensor.js";
import type { DiffusionBatch } from "../src/training/index.js";
import { drawAdapters, drawInputs } from "./model-inputs.js";

const ADAPTERS = "adapters.";

/** What a step needs besides the frozen model. */
export interface StepInputs {
  config: FeRAConfig;
  batch: DiffusionBatch & { encoderHiddenStates: Tensor };
  /** Under the state dict's names. */
  adapters: Map<string, Tensor>;
}

/** Draws a batch of whatever the model takes, and adapters, and writes them; the configuration is in the file's metadata. */
export async function writeStepInputs(
  path: string,
  model: UNet2DConditionModel,
  config: FeRAConfig,
  shape: UNetShape,
): Promise<void> {
  const generator = new Generator(1);
  const { batchSize, latentHeight: height, latentWidth: width } = shape;
  const tensors = new Map<string, Tensor>(Object.entries(drawInputs(model, shape, generator)));
  tensors.set("timesteps", randint(0, 1000, [batchSize], { generator }));
  tensors.set("target", randn([batchSize, model.config.out_channels, height, width], { generator }));
  const adapters = drawAdapters(new FeRAModel(model, config), generator);
  for (const [name, value] of adapters) tensors.set(ADAPTERS + name, value);
  await mkdir(dirname(path), { recursive: true });
  await writeSafetensors(path, tensors, { config: JSON.stringify(config) });
}

/** Reads what {@link writeStepInputs} wrote. */
export async function readStepInputs(path: string): Promise<StepInputs> {
  const { tensors, metadata } = await readSafetensors(path);
  const adapters = new Map<string, Tensor>();
  const batch: Record<string, Tensor> = {};
  for (const [name, value] of tensors) {
    if (name.startsWith(ADAPTERS)) adapters.set(name.slice(ADAPTERS.length), value);
    else batch[name] = value;
  }
  return {
    config: FeRAConfig.fromJSON(JSON.parse(metadata.config!), path),
    batch: batch as unknown as StepInputs["batch"],
    adapters,
  };
}
