// The sampling loop: from noisy latents to clean ones, along a scheduler, with guidance. Knows no model classes.

import { RuntimeError } from "../errors.js";
import type { Scheduler } from "../schedulers/index.js";
import { type Generator, randn } from "../tensor/random.js";
import { allFinite, type Tensor, tensor } from "../tensor/tensor.js";
import { throwIfAborted } from "./abort.js";
import { concatRows, sliceRows } from "./batches.js";
import { type Conditions, concatConditions } from "./conditions.js";
import { type Guidance, guided } from "./guidance.js";

/** What is reported after each step. */
export interface GenerationStep {
  /** 1 … `steps`. */
  step: number;
  /** As many as the scheduler visits timesteps: more than were asked for with some, fewer from an image. */
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

/** What a prediction is made from. */
export interface PredictionInputs extends Conditions {
  /** As the scheduler shows them to the model, `[B, C, h, w]`. */
  latents: Tensor<"float32">;
  /** `[B]`. */
  timesteps: Tensor<"float32">;
}

export interface DenoiseOptions {
  predict(inputs: PredictionInputs): Promise<Prediction>;
  scheduler: Scheduler;
  /** The scheduler's timesteps, set already, or the last ones of them. */
  timesteps: readonly number[];
  /** As noisy as the first timestep is, `[N, C, h, w]`. */
  latents: Tensor<"float32">;
  /** Of the prompts, N rows. */
  conditional: Conditions;
  /** To be guided away from, alike; without them there is no guidance. */
  unconditional?: Conditions;
  guidance: Guidance;
  /** For samplers that add noise. */
  generator: Generator;
  onStep?: (step: GenerationStep) => void | Promise<void>;
  signal?: AbortSignal;
}

/**
 * Walks the timesteps. With guidance, both halves of a doubled batch see the same latents.
 *
 * @throws {AbortError} Between steps, if the signal has fired.
 * @throws {RuntimeError} If a prediction is not finite.
 */
export async function denoise(
  options: DenoiseOptions,
): Promise<{ latents: Tensor<"float32">; route: RoutingTrace | undefined }> {
  const { scheduler, timesteps, conditional, unconditional, guidance, generator, signal } = options;
  const conditions = unconditional ? concatConditions(unconditional, conditional) : conditional;
  const firstConditional = unconditional ? options.latents.shape[0]! : 0;
  const route: RoutingTrace = { timesteps: [], energies: [], weights: [] };

  let { latents } = options;
  for (const [index, timestep] of timesteps.entries()) {
    throwIfAborted("generate", signal);

    // 1. The prediction, of both halves at once
    const input = scheduler.scaleModelInput(latents, timestep);
    const batch = unconditional ? concatRows([input, input]) : input;
    const { output, energies, weights } = await options.predict({
      ...conditions,
      latents: batch,
      timesteps: tensor(new Float32Array(batch.shape[0]!).fill(timestep)),
    });
    if (energies && weights) {
      route.timesteps.push(timestep);
      route.energies.push(rowValues(energies, firstConditional));
      route.weights.push(rowValues(weights, firstConditional));
    }

    // 2. Guidance
    const prediction = unconditional ? guided(output, guidance) : output;
    if (!allFinite(prediction.data)) {
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

function rowValues(table: Tensor<"float32">, first: number): number[][] {
  const [rows, width] = table.shape as [number, number];
  const { data } = sliceRows(table, first, rows);
  return Array.from({ length: rows - first }, (_, row) => Array.from(data.subarray(row * width, (row + 1) * width)));
}
