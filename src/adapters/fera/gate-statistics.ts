// How a router behaves over noisy latents: mean gates, and what an adapter loses when its gates are frozen.

import {
  type Conditioning,
  type ConditioningInputs,
  conditioningOf,
  type DenoiserInputs,
  sliceConditioning,
} from "../../diffusion/index.js";
import { ConfigError, ShapeError } from "../../errors.js";
import { Generator, randn } from "../../tensor/random.js";
import { meanRows, sliceRows } from "../../tensor/rows.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import type { LoadedAdapter } from "../adapter-format.js";
import type { FeRAConfig } from "./fera-config.js";
import { FeRAModel } from "./fera-model.js";

/**
 * Noisy latents z_t = √ᾱ_t z + √(1 − ᾱ_t) ε of N images at each of some timesteps, ε standard normal; with flow matching
 * z_t = (1 − t/T) z + t/T ε.
 */
export interface NoisyLatents {
  /** Clean latents z as the diffusion model sees them, float32 `[N, C, h, w]`. */
  latents: Tensor<"float32">;
  /** Gives ᾱ, or without one (flow matching) T. */
  scheduler: {
    readonly alphasCumprod?: ArrayLike<number>;
    readonly config?: Readonly<Record<string, unknown>>;
  };
  /** In 0 … T−1. */
  timesteps: readonly number[];
  /** Draws ε, anew for every timestep; the same seed gives the same noise. Default 0. */
  seed?: number;
}

/** Gates at one timestep. */
export interface GatesAtTimestep {
  timestep: number;
  /** The mean over the images, E numbers. */
  gates: number[];
}

/** `count` timesteps in the middles of equal parts of 0 … total−1. */
export function evenTimesteps(count: number, total: number): number[] {
  return Array.from({ length: count }, (_, i) => Math.floor(((i + 0.5) / count) * total));
}

/**
 * The router's output at every timestep, each the mean over the images. The denoiser is not run.
 *
 * @throws {ConfigError} If there is no timestep, or one lies outside the schedule.
 * @throws {ShapeError} If there are no images.
 */
export async function gatesOverTimesteps(fera: FeRAModel, noisy: NoisyLatents): Promise<GatesAtTimestep[]> {
  const result: GatesAtTimestep[] = [];
  for (const { timestep, latents } of noisyLatents(noisy)) {
    const { gates } = await fera.route(latents, tensor([timestep], [1], "int64"));
    result.push({ timestep, gates: meanRows(gates) });
  }
  return result;
}

/** The mean over timesteps. */
export function meanGates(trajectory: readonly GatesAtTimestep[]): number[] {
  const [first] = trajectory;
  if (!first) throw new ConfigError("meanGates: needs at least one timestep.");
  return first.gates.map((_, k) => trajectory.reduce((sum, { gates }) => sum + gates[k]!, 0) / trajectory.length);
}

/** What freezing changes at one timestep, over all images together. */
export interface FreezingErrorAtTimestep {
  timestep: number;
  /** ‖frozen − live‖ / ‖live‖ of the denoiser's adapted output. */
  ofOutput: number;
  /** ‖frozen − live‖ / ‖live − base‖: the share of what the adapter changes; absent where it changes nothing. */
  ofEffect?: number;
}

/** What freezing changes. */
export interface FreezingError {
  perTimestep: FreezingErrorAtTimestep[];
  /** Means over the timesteps. */
  ofOutput: number;
  ofEffect?: number;
}

/**
 * Compares the denoiser's output under frozen gates with that under live routing.
 *
 * The denoiser runs three times (live, frozen, without adapters) per image and timestep, one image at a time.
 *
 * @param fera - The live adapters; they are not changed.
 * @param frozen - What {@link freezeGates} made of them.
 * @param options.onProgress - Called with the passes done, of 3 · N · timesteps.
 * @throws {ConfigError | ShapeError} As {@link gatesOverTimesteps}.
 */
export async function freezingError(
  fera: FeRAModel,
  frozen: LoadedAdapter<FeRAConfig>,
  noisy: NoisyLatents & ConditioningInputs,
  options: { onProgress?: (done: number) => void; signal?: AbortSignal } = {},
): Promise<FreezingError> {
  const { model } = fera;
  const single = new FeRAModel(model);
  single.useAdapter(frozen);
  const { latents: _, ...told } = noisy;
  const conditioning = conditioningOf(told);
  const inputs = [...noisyLatents(noisy)].map((batch) => ({ ...batch, images: imagesOf(batch, conditioning) }));
  let done = 0;
  // One kind of pass after the other, so that only one compiled graph is held.
  const outputs = async (predict: (inputs: DenoiserInputs) => Promise<Tensor<"float32">>) => {
    const all: Float32Array[][] = [];
    for (const { images } of inputs) {
      const row: Float32Array[] = [];
      for (const image of images) {
        options.signal?.throwIfAborted();
        row.push((await predict(image)).data);
        options.onProgress?.(++done);
      }
      all.push(row);
    }
    return all;
  };
  const live = await outputs((image) => fera.predict(image)).finally(() => fera.release());
  const still = await outputs((image) => single.predict(image)).finally(() => single.release());
  const base = await outputs((image) => model.predict(image)).finally(() => model.release());
  const perTimestep = inputs.map(({ timestep }, i): FreezingErrorAtTimestep => {
    const error = distance(still[i]!, live[i]!);
    const effect = distance(live[i]!, base[i]!);
    const size = distance(live[i]!);
    const ofOutput = error === 0 ? 0 : error / size;
    return { timestep, ofOutput, ...(effect > 0 && { ofEffect: error / effect }) };
  });
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const effects = perTimestep.flatMap(({ ofEffect }) => (ofEffect === undefined ? [] : [ofEffect]));
  return {
    perTimestep,
    ofOutput: mean(perTimestep.map(({ ofOutput }) => ofOutput)),
    ...(effects.length > 0 && { ofEffect: mean(effects) }),
  };
}

function* noisyLatents({ latents, scheduler, timesteps, seed = 0 }: NoisyLatents) {
  const { alphasCumprod, config } = scheduler;
  const total = alphasCumprod?.length ?? Number(config?.num_train_timesteps ?? 1000);
  const wrong = timesteps.find((timestep) => !Number.isInteger(timestep) || timestep < 0 || timestep >= total);
  if (timesteps.length === 0 || wrong !== undefined) {
    throw new ConfigError(`timesteps: must be integers from 0 to ${total - 1}, at least one; got ${wrong ?? "none"}.`);
  }
  const [count] = latents.shape;
  if (latents.shape.length !== 4 || !count) {
    throw new ShapeError(`latents: must be [N, C, h, w] of at least one image; got [${latents.shape.join(",")}].`);
  }
  const generator = new Generator(seed);
  for (const timestep of timesteps) {
    const noise = randn(latents.shape, { generator }).data;
    const [signal, spread] = alphasCumprod
      ? [Math.sqrt(alphasCumprod[timestep]!), Math.sqrt(1 - alphasCumprod[timestep]!)]
      : [1 - timestep / total, timestep / total];
    const noisy = latents.data.map((value, i) => signal * value + spread * noise[i]!);
    yield { timestep, latents: tensor(noisy, latents.shape) };
  }
}

function imagesOf(batch: { timestep: number; latents: Tensor }, conditioning: Conditioning): DenoiserInputs[] {
  return Array.from({ length: batch.latents.shape[0]! }, (_, i) => ({
    latents: sliceRows(batch.latents, i, i + 1),
    timesteps: tensor([batch.timestep], [1], "int64"),
    ...sliceConditioning(conditioning, i, i + 1),
  }));
}

/** ‖a − b‖ over all parts together; ‖a‖ without b. */
function distance(a: readonly Float32Array[], b?: readonly Float32Array[]): number {
  let sum = 0;
  a.forEach((part, i) => {
    const other = b?.[i];
    for (let j = 0; j < part.length; j++) sum += (part[j]! - (other ? other[j]! : 0)) ** 2;
  });
  return Math.sqrt(sum);
}
