// The sampling loop: from noise to latents, along a scheduler, with classifier-free guidance. Knows no model classes.

import { RuntimeError } from "../errors.js";
import type { Scheduler } from "../schedulers/index.js";
import { type Generator, randn } from "../tensor/random.js";
import { Tensor, tensor } from "../tensor/tensor.js";
import { throwIfAborted } from "./abort.js";
import { concatRows, sliceRows } from "./batches.js";

/** What is reported after each step. */
export interface GenerationStep {
  /** 1 … `steps`. */
  step: number;
  /** As many as the scheduler visits timesteps; some visit more than were asked for. */
  steps: number;
  /** The timestep that was just left. */
  timestep: number;
  /** The less noisy latents, `[N, C, h, w]`. */
  latents: Tensor<"float32">;
}

/**
 * How the adapters were mixed along a run. S steps, N images, K bands, E experts.
 *
 * With guidance, of the half that saw the prompt.
 */
export interface RoutingTrace {
  timesteps: number[];
  /** `[S][N][K]`; each row sums to 1, up to rounding. */
  energies: number[][][];
  /** `[S][N][E]`; each row sums to 1. */
  weights: number[][][];
}

/** A model's prediction, and how its adapters were mixed where it has some. */
export interface Prediction {
  /** `[B, C, h, w]`. */
  output: Tensor<"float32">;
  /** `[B, K]`. */
  energies?: Tensor<"float32">;
  /** `[B, E]`. */
  weights?: Tensor<"float32">;
}

export interface DenoiseOptions {
  predict(inputs: {
    latents: Tensor<"float32">;
    timesteps: Tensor<"float32">;
    encoderHiddenStates: Tensor<"float32">;
  }): Promise<Prediction>;
  /** Its timesteps are set already. */
  scheduler: Scheduler;
  /** Standard normal noise `[N, C, h, w]`. */
  noise: Tensor<"float32">;
  /** States of the prompts, `[N, L, D]`. */
  conditional: Tensor<"float32">;
  /** States to be guided away from, of the same shape; without them there is no guidance. */
  unconditional?: Tensor<"float32">;
  guidanceScale: number;
  /** For samplers that add noise. */
  generator: Generator;
  onStep?: (step: GenerationStep) => void | Promise<void>;
  signal?: AbortSignal;
}

/**
 * Walks the scheduler's timesteps.
 *
 * With guidance, both halves of a doubled batch see the same latents, and
 * prediction = unconditional + scale · (conditional − unconditional).
 *
 * @throws {AbortError} Between steps, if the signal has fired.
 * @throws {RuntimeError} If a prediction is not finite.
 * @see Ho & Salimans 2022, arXiv:2207.12598
 */
export async function denoise(
  options: DenoiseOptions,
): Promise<{ latents: Tensor<"float32">; route: RoutingTrace | undefined }> {
  const { scheduler, noise, conditional, unconditional, guidanceScale, generator, signal } = options;
  const count = noise.shape[0]!;
  const states = unconditional ? concatRows([unconditional, conditional]) : conditional;
  const firstConditional = unconditional ? count : 0;
  const timesteps = [...scheduler.timesteps];
  const route: RoutingTrace = { timesteps: [], energies: [], weights: [] };

  let latents = scaled(noise, scheduler.initNoiseSigma);
  for (const [index, timestep] of timesteps.entries()) {
    throwIfAborted("generate", signal);

    // 1. The prediction, of both halves at once
    const input = scheduler.scaleModelInput(latents, timestep);
    const batch = unconditional ? concatRows([input, input]) : input;
    const { output, energies, weights } = await options.predict({
      latents: batch,
      timesteps: tensor(new Float32Array(batch.shape[0]!).fill(timestep)),
      encoderHiddenStates: states,
    });
    if (energies && weights) {
      route.timesteps.push(timestep);
      route.energies.push(rowValues(energies, firstConditional));
      route.weights.push(rowValues(weights, firstConditional));
    }

    // 2. Guidance
    const prediction = unconditional ? guided(output, guidanceScale) : output;
    if (!prediction.data.every(Number.isFinite)) {
      throw new RuntimeError(
        `generate: the prediction at timestep ${timestep} is not finite; check the model's weights and its adapters.`,
      );
    }

    // 3. One step of the sampler
    const { prevSample } = scheduler.step(prediction, timestep, latents, {
      noise: (shape) => randn(shape, { generator }),
    });
    latents = prevSample;
    await options.onStep?.({ step: index + 1, steps: timesteps.length, timestep, latents });
  }
  throwIfAborted("generate", signal);
  return { latents, route: route.timesteps.length > 0 ? route : undefined };
}

function scaled(x: Tensor<"float32">, factor: number): Tensor<"float32"> {
  return new Tensor(
    "float32",
    x.shape,
    x.data.map((value) => value * factor),
  );
}

/** unconditional + scale · (conditional − unconditional), of a doubled batch. */
function guided(doubled: Tensor<"float32">, scale: number): Tensor<"float32"> {
  const half = doubled.shape[0]! / 2;
  const away = sliceRows(doubled, 0, half);
  const towards = sliceRows(doubled, half, 2 * half).data;
  const data = away.data.map((from, i) => from + scale * (towards[i]! - from));
  return new Tensor("float32", away.shape, data);
}

function rowValues(table: Tensor<"float32">, from: number): number[][] {
  const [rows, columns] = table.shape as [number, number];
  return Array.from({ length: rows - from }, (_, row) =>
    Array.from(table.data.subarray((from + row) * columns, (from + row + 1) * columns)),
  );
}
