// Random numbers for whatever a denoiser takes, and for its adapters.

import type { FeRAModel } from "../src/adapters/index.js";
import type { Denoiser, DenoiserInputs, DenoiserShape } from "../src/diffusion/index.js";
import { Graph } from "../src/graph/index.js";
import { type Generator, randn } from "../src/tensor/random.js";
import { sizeOf, type Tensor, tensor } from "../src/tensor/tensor.js";

/** What a batch has beside its target. */
export type ModelInputs = DenoiserInputs & { timesteps: Tensor };

/** Of the experts' second factors, which start at 0 in training: then half of the gradients would be 0. */
const UP_STD = 0.02;
/** As people give it. */
const GUIDANCE = 3.5;
const TIMESTEP = 500;

/** A batch of whatever the model takes. */
export function drawInputs(model: Denoiser, shape: DenoiserShape, generator: Generator): ModelInputs {
  const made = Object.entries(model.declareInputs(new Graph(), shape)).map(([name, { shape }]): [string, Tensor] => {
    if (name === "timesteps") return [name, constant(shape, TIMESTEP)];
    if (name === "guidance") return [name, constant(shape, GUIDANCE)];
    if (name === "encoderAttentionMask") return [name, constant(shape, 1)];
    if (name === "timeIds") return [name, timeIds(shape)];
    return [name, randn(shape, { generator })];
  });
  return Object.fromEntries(made) as unknown as ModelInputs;
}

/** A model's adapters with second factors that are not 0. */
export function drawAdapters(fera: FeRAModel, generator: Generator): Map<string, Tensor<"float32">> {
  const state = fera.stateDict();
  for (const [name, { shape, data }] of state) {
    if (!name.includes("lora_up")) continue;
    const drawn = randn(shape, { generator }).data;
    for (let i = 0; i < drawn.length; i++) data[i] = UP_STD * drawn[i]!;
  }
  return state;
}

/** SDXL's sizes of a square of 512 pixels, not cropped, `[B, 6]`. */
function timeIds([batchSize, count]: readonly number[]): Tensor {
  const row = [512, 512, 0, 0, 512, 512].slice(0, count);
  return tensor(Array.from({ length: batchSize! }, () => row).flat(), [batchSize!, row.length]);
}

function constant(shape: readonly number[], value: number): Tensor {
  return tensor(new Float32Array(sizeOf(shape)).fill(value), shape);
}
