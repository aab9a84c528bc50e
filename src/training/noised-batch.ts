// A batch of a diffusion objective: rows of the data, with noise and timesteps from a seeded generator.

import { dropConditioning, type NoisedBatch, type Objective, takeConditioning } from "../diffusion/index.js";
import { type Generator, randint, randn } from "../tensor/random.js";
import { takeRows } from "../tensor/rows.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import type { EncodedDataset } from "./encoded-dataset.js";
import type { DiffusionBatch } from "./trainable.js";

/** The batch of the given rows, with noise (and timesteps, unless given) drawn from the generator. */
export function diffusionBatch(
  data: EncodedDataset,
  rows: readonly number[],
  options: {
    objective: Objective;
    generator: Generator;
    noiseOffset?: number;
    dropped?: readonly boolean[];
    timesteps?: readonly number[];
  },
): DiffusionBatch & NoisedBatch & { noise: Tensor<"float32"> } {
  const { objective, generator, noiseOffset = 0, dropped = [], timesteps: given } = options;
  const count = rows.length;
  const clean = takeRows(data.latents, rows);
  if (data.latentStd) {
    const std = takeRows(data.latentStd, rows).data;
    const jitter = randn(clean.shape, { generator }).data;
    for (let i = 0; i < clean.data.length; i++) clean.data[i] = clean.data[i]! + std[i]! * jitter[i]!;
  }
  const timesteps = given
    ? tensor([...given], [count], "int64")
    : randint(0, objective.trainTimesteps, [count], { generator });
  const noise = randn(clean.shape, { generator });
  // Without one, nothing more is drawn.
  if (noiseOffset > 0) addOffsets(noise, noiseOffset, generator);
  const noised = objective.noised(clean, noise, Array.from(timesteps.data as ArrayLike<bigint | number>, Number));
  const conditioning = dropConditioning(takeConditioning(data.conditioning, rows), dropped, data.empty);
  return { ...conditioning, ...noised, timesteps, noise };
}

/** noise `[B, C, …]` += offset · standard normal `[B, C, 1, …]`. */
function addOffsets({ data, shape }: Tensor<"float32">, offset: number, generator: Generator): void {
  const offsets = randn(shape.slice(0, 2), { generator }).data;
  const size = data.length / offsets.length;
  for (let i = 0; i < data.length; i++) data[i] = data[i]! + offset * offsets[Math.floor(i / size)]!;
}
