// What the gates of a trained FeRA do: whether they follow the clock or the image, what their routing is worth, and whether
// experts differ.

import { evenTimesteps, FeRAModel, freezeGates } from "../adapters/index.js";
import { conditioningOf, type Objective } from "../diffusion/index.js";
import { Generator } from "../tensor/random.js";
import type { Tensor } from "../tensor/tensor.js";
import type { EncodedRows } from "../training/encoded-dataset.js";
import { evenPlaces } from "../training/index.js";
import { type DrawnBatch, noisedBatch } from "../training/noised-batch.js";
import type { GateResult } from "./records.js";

const IMAGES = 12;
const TIMESTEPS = 8;

/** By timestep, image, and expert or band. */
type Table = readonly (readonly (readonly number[])[])[];

/** Looks at gates and energies of some held-out images at some timesteps. */
export async function analyzeGates(
  fera: FeRAModel,
  data: EncodedRows,
  { objective, seed, signal }: { objective: Objective; seed: number; signal?: AbortSignal | undefined },
): Promise<GateResult> {
  const draws = evenPlaces(data.size, IMAGES).map((index) => ({ index }));
  const rows = { ...(await data.read(draws)), empty: data.empty };
  const generator = new Generator(seed);
  const times = evenTimesteps(TIMESTEPS, objective.trainTimesteps);
  const batches = times.map((time) => noisedBatch(rows, { objective, generator, timesteps: draws.map(() => time) }));
  const energies: number[][][] = [];
  const gates: number[][][] = [];
  let live = 0;
  for (const [i, batch] of batches.entries()) {
    signal?.throwIfAborted();
    const routed = await fera.predictWithRoute(inputsOf(batch));
    energies.push(rowsOf(routed.energies));
    gates.push(rowsOf(routed.gates));
    live += errorOf(routed.output, batch, objective.noiseFactors(times[i]!)) / TIMESTEPS;
  }
  await fera.release();
  const perTime = gates.map(meanOfRows);
  const frozenAtTimestep = await frozenError(fera, batches, times, objective, (i) => perTime[i]!);
  const frozen = await frozenError(fera, batches, times, objective, () => meanOfRows(perTime));
  return {
    gatesByTimestep: explainedByTimestep(gates),
    energiesByTimestep: explainedByTimestep(energies) ?? 1,
    energySpread: energies[0]![0]!.map((_, band) => meanSpread(energies, band)),
    meanGates: times.map((timestep, i) => ({ timestep, gates: perTime[i]! })),
    ...{ live, frozenAtTimestep, frozen },
    overlap: fera.config.numExperts > 1 ? expertOverlap(fera) : undefined,
  };
}

/** The error where at timestep i all images have the same gates. */
async function frozenError(
  fera: FeRAModel,
  batches: readonly DrawnBatch[],
  times: readonly number[],
  objective: Objective,
  gatesAt: (i: number) => readonly number[],
): Promise<number> {
  const { config, layers } = fera;
  const adapter = { config, layers: [...layers], state: fera.stateDict(), hasConfig: true };
  const single = new FeRAModel(fera.model, freezeGates(adapter, gatesAt(0)).config);
  // Once asked for, its values are inputs of what is compiled, which then serves all timesteps.
  void single.parameters;
  let error = 0;
  for (const [i, batch] of batches.entries()) {
    single.useAdapter(freezeGates(adapter, gatesAt(i)));
    const output = await single.predict(inputsOf(batch));
    error += errorOf(output, batch, objective.noiseFactors(times[i]!)) / batches.length;
  }
  await single.release();
  return error;
}

const inputsOf = (batch: DrawnBatch) => ({
  ...conditioningOf(batch),
  latents: batch.latents,
  timesteps: batch.timesteps,
});

/** Mean of (ε̂ − ε)², ε̂ = a·output + b·z_t. */
function errorOf(output: Tensor<"float32">, { latents, noise }: DrawnBatch, [a, b]: readonly [number, number]): number {
  let sum = 0;
  for (let i = 0; i < output.size; i++) sum += (a * output.data[i]! + b * latents.data[i]! - noise.data[i]!) ** 2;
  return sum / output.size;
}

function rowsOf({ data, shape }: Tensor<"float32">): number[][] {
  const width = shape[1]!;
  return Array.from({ length: shape[0]! }, (_, row) => [...data.slice(row * width, (row + 1) * width)]);
}

function meanOfRows(rows: readonly (readonly number[])[]): number[] {
  return rows[0]!.map((_, column) => rows.reduce((sum, row) => sum + row[column]!, 0) / rows.length);
}

/**
 * R² of the values on the timestep: 1 − Σ (v − mean at t)² / Σ (v − mean)², over images, timesteps and columns.
 *
 * @returns Undefined where the values do not vary.
 */
export function explainedByTimestep(table: Table): number | undefined {
  const perTime = table.map(meanOfRows);
  const mean = meanOfRows(perTime);
  let [within, total] = [0, 0];
  table.forEach((rows, i) => {
    for (const row of rows) {
      row.forEach((value, column) => {
        within += (value - perTime[i]![column]!) ** 2;
        total += (value - mean[column]!) ** 2;
      });
    }
  });
  return total < 1e-9 * table.length ? undefined : 1 - within / total;
}

/** The mean over timesteps of a column's standard deviation between images. */
function meanSpread(table: Table, column: number): number {
  const spreads = table.map((rows) => {
    const mean = rows.reduce((sum, row) => sum + row[column]!, 0) / rows.length;
    return Math.sqrt(rows.reduce((sum, row) => sum + (row[column]! - mean) ** 2, 0) / rows.length);
  });
  return spreads.reduce((sum, spread) => sum + spread, 0) / spreads.length;
}

/** Mean overlap of experts' subspaces over pairs and layers: of their inputs (rows of A) and outputs (columns of B). */
function expertOverlap(fera: FeRAModel): GateResult["overlap"] {
  const { rank, numExperts, sharedDown } = fera.config;
  const state = fera.stateDict();
  const sums = { down: 0, up: 0, downByChance: 0, upByChance: 0 };
  let pairs = 0;
  for (const { path, inFeatures, outFeatures, kernelSize } of fera.layers) {
    const inputs = inFeatures * kernelSize ** 2;
    const bases = Array.from({ length: numExperts }, (_, expert) => {
      const prefix = `base_model.${path}.experts.`;
      const down = state.get(sharedDown ? `${prefix}lora_down.weight` : `${prefix}${expert}.lora_down.weight`)!.data;
      const up = state.get(`${prefix}${expert}.lora_up.weight`)!.data;
      const columns = Array.from({ length: rank }, (_, k) =>
        Float64Array.from({ length: outFeatures }, (_, row) => up[row * rank + k]!),
      );
      const rows = Array.from({ length: rank }, (_, k) =>
        Float64Array.from(down.subarray(k * inputs, (k + 1) * inputs)),
      );
      return { down: orthonormal(rows), up: orthonormal(columns) };
    });
    for (let a = 0; a < numExperts; a++) {
      for (let b = a + 1; b < numExperts; b++) {
        sums.down += subspaceOverlap(bases[a]!.down, bases[b]!.down);
        sums.up += subspaceOverlap(bases[a]!.up, bases[b]!.up);
        sums.downByChance += Math.min(1, rank / inputs);
        sums.upByChance += Math.min(1, rank / outFeatures);
        pairs++;
      }
    }
  }
  const mean = (sum: number) => sum / pairs;
  return {
    ...{ down: mean(sums.down), up: mean(sums.up) },
    ...{ downByChance: mean(sums.downByChance), upByChance: mean(sums.upByChance) },
  };
}

/** An orthonormal basis of what the vectors span, by Gram and Schmidt, twice for accuracy. */
export function orthonormal(vectors: readonly Float64Array[]): Float64Array[] {
  const basis: Float64Array[] = [];
  for (const vector of vectors) {
    const rest = vector.slice();
    const before = Math.hypot(...rest);
    for (let pass = 0; pass < 2; pass++) {
      for (const direction of basis) {
        const along = dot(rest, direction);
        for (let i = 0; i < rest.length; i++) rest[i]! -= along * direction[i]!;
      }
    }
    const norm = Math.hypot(...rest);
    if (norm > 1e-8 * before) basis.push(rest.map((value) => value / norm));
  }
  return basis;
}

/**
 * The mean squared cosine of the principal angles between two subspaces, ‖Q₁ᵀ Q₂‖² / min(r₁, r₂): 1 where one contains the
 * other, 0 where they are perpendicular, r/n by chance. 0 where one is empty.
 */
export function subspaceOverlap(a: readonly Float64Array[], b: readonly Float64Array[]): number {
  if (a.length === 0 || b.length === 0) return 0;
  const sum = a.reduce((total, first) => total + b.reduce((own, second) => own + dot(first, second) ** 2, 0), 0);
  return sum / Math.min(a.length, b.length);
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}
