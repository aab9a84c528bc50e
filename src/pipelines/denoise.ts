// The sampling loop: from noisy latents to clean ones, along a scheduler, with guidance. Knows no model classes.

import type { RoutedGates, StackPrediction } from "../adapters/adapter-stack.js";
import { type Conditioning, concatConditioning, type DenoiserInputs } from "../diffusion/index.js";
import { RuntimeError } from "../errors.js";
import type { Scheduler } from "../schedulers/index.js";
import { type Generator, randn } from "../tensor/random.js";
import { concatRows, sliceRows } from "../tensor/rows.js";
import { allFinite, type Tensor, tensor } from "../tensor/tensor.js";
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
 * How an adapter's experts were mixed along a run. S steps, N images, K bands, E experts.
 *
 * With guidance, of the half that saw the prompt.
 */
export interface RoutingTrace {
  timesteps: number[];
  /** `[S][N][K]`; each row sums to 1, up to rounding. */
  energies: number[][][];
  /** `[S][N][E]`; each row sums to 1. */
  gates: number[][][];
  /** The gates under their former name. */
  weights: number[][][];
}

/** What to draw, and what to be guided away from where there is guidance. */
export interface GuidedConditioning {
  conditional: Conditioning;
  unconditional?: Conditioning;
}

export interface DenoiseOptions extends GuidedConditioning {
  predict(inputs: DenoiserInputs): Promise<StackPrediction>;
  scheduler: Scheduler;
  /** The scheduler's timesteps, set already, or the last ones of them. */
  timesteps: readonly number[];
  /** As noisy as the first timestep is, `[N, C, h, w]`; the conditioning has N rows, too. */
  latents: Tensor<"float32">;
  guidance: Guidance;
  /** For samplers that add noise. */
  generator: Generator;
  onStep?: (step: GenerationStep) => void | Promise<void>;
  signal?: AbortSignal;
}

/**
 * Walks the timesteps. With guidance, both halves of a doubled batch see the same latents.
 *
 * @returns The latents, and how routed adapters were mixed, by name.
 * @throws The signal's reason (by default a DOMException named AbortError) between steps, if it has fired.
 * @throws {RuntimeError} If a prediction is not finite.
 */
export async function denoise(
  options: DenoiseOptions,
): Promise<{ latents: Tensor<"float32">; routes: ReadonlyMap<string, RoutingTrace> }> {
  const { scheduler, timesteps, conditional, unconditional, guidance, generator, signal } = options;
  const conditioning = unconditional ? concatConditioning([unconditional, conditional]) : conditional;
  const firstConditional = unconditional ? options.latents.shape[0]! : 0;
  const routes = new Map<string, RoutingTrace>();
  let { latents } = options;
  for (const [index, timestep] of timesteps.entries()) {
    signal?.throwIfAborted();

    // 1. The prediction, of both halves at once
    const input = scheduler.scaleModelInput(latents, timestep);
    const batch = unconditional ? concatRows([input, input]) : input;
    const { output, routing } = await options.predict({
      ...conditioning,
      latents: batch,
      timesteps: tensor(new Float32Array(batch.shape[0]!).fill(timestep)),
    });
    for (const [name, gates] of routing) record(routes, name, timestep, gates, firstConditional);

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
  signal?.throwIfAborted();
  return { latents, routes };
}

function record(
  routes: Map<string, RoutingTrace>,
  name: string,
  timestep: number,
  { energies, gates }: RoutedGates,
  firstRow: number,
): void {
  let route = routes.get(name);
  if (!route) {
    const all: number[][][] = [];
    route = { timesteps: [], energies: [], gates: all, weights: all };
    routes.set(name, route);
  }
  route.timesteps.push(timestep);
  route.energies.push(rowValues(energies, firstRow));
  route.gates.push(rowValues(gates, firstRow));
}

function rowValues(table: Tensor<"float32">, first: number): number[][] {
  const [rows, width] = table.shape as [number, number];
  const { data } = sliceRows(table, first, rows);
  return Array.from({ length: rows - first }, (_, row) => Array.from(data.subarray(row * width, (row + 1) * width)));
}
