// The frequency-energy consistency loss: what an adapter changes should be spread over the bands as the error is.

import { ShapeError } from "../../errors.js";
import * as ops from "../../graph/index.js";
import { Graph, sameShape, type Value } from "../../graph/index.js";
import { compile, type RuntimeOptions } from "../../runtime/index.js";
import type { Tensor } from "../../tensor/tensor.js";
import { FeRAConfig, type FeRAOptions } from "./fera-config.js";
import { type BandOptions, frequencyBands, shares, squaredNorms } from "./indicator.js";

const NORM_EPSILON = 1e-8;

/**
 * FECL = mean over B of Σ_k v_k · (‖δ_k‖ / (‖δ‖ + 1e-8) − ‖ρ_k‖ / (‖ρ‖ + 1e-8))², not weighted.
 *
 * δ = fera − base is what the adapters change, ρ = fera − target the error that is left, δ_k and ρ_k their bands,
 * v_k = ‖ρ_k‖² / (Σ_j ‖ρ_j‖² + 1e-8). Norms are over C, H, W; a norm's gradient at 0 is 0. Gradients flow through
 * v_k and both ratios.
 *
 * With a mask m, δ and ρ are multiplied by √m before all else, so that norms count squares m times, as a masked mean squared
 * error does; what lies where m is 0 has no influence. With weights w a sample counts w_b times, the mean still over B: as it
 * is a ratio of norms, it has the weight of the sample's other losses and keeps its share of them at every noise level.
 *
 * @param base - Prediction without adapters, `[B, C, H, W]`, like `fera` (with adapters) and `target`.
 * @returns A scalar, 0 or more.
 */
export function feclLoss(
  base: Value,
  fera: Value,
  target: Value,
  options: BandOptions,
  { lossWeights, lossMask }: { lossWeights?: Value; lossMask?: Value } = {},
): Value {
  const root = lossMask && ops.sqrt(lossMask);
  const masked = (x: Value): Value => (root ? ops.mul(x, root) : x);
  const delta = masked(ops.sub(fera, base));
  const residual = masked(ops.sub(fera, target));
  const deltaNorms = ops.sqrt(squaredNorms(frequencyBands(delta, options)));
  const residualEnergies = squaredNorms(frequencyBands(residual, options));
  const difference = ops.sub(
    ops.div(deltaNorms, ops.add(norm(delta), NORM_EPSILON)),
    ops.div(ops.sqrt(residualEnergies), ops.add(norm(residual), NORM_EPSILON)),
  );
  const weighted = ops.mul(shares(residualEnergies), ops.mul(difference, difference));
  const perSample = ops.reduceSum(weighted, [1]);
  return ops.reduceMean(lossWeights ? ops.mul(perSample, lossWeights) : perSample);
}

/** `[B, 1]`. */
function norm(x: Value): Value {
  return ops.sqrt(squaredNorms([x]));
}

/** What {@link frequencyEnergyConsistencyLoss} compares, each float32 `[B, C, H, W]`. */
export interface ConsistencyLossInputs {
  /** Prediction without adapters. */
  base: Tensor;
  /** Prediction with adapters. */
  fera: Tensor;
  target: Tensor;
  /** Bands and `feclWeight`. */
  config?: FeRAOptions;
}

/**
 * The weighted loss, `feclWeight` · L_FECL, and its gradient with respect to `fera`.
 *
 * @throws {ShapeError} If the three tensors are not of one shape.
 */
export async function frequencyEnergyConsistencyLoss(
  { base, fera, target, config = {} }: ConsistencyLossInputs,
  runtime: RuntimeOptions = {},
): Promise<{ loss: number; gradient: Tensor<"float32"> }> {
  if (!sameShape(base.shape, fera.shape) || !sameShape(target.shape, fera.shape)) {
    const came = [base, fera, target].map(({ shape }) => `[${shape.join(",")}]`).join(", ");
    throw new ShapeError(`frequencyEnergyConsistencyLoss: base, fera and target must be of one shape; got ${came}.`);
  }
  const options = config instanceof FeRAConfig ? config : new FeRAConfig(config);
  const graph = new Graph();
  const [from, adapted, wanted] = ["base", "fera", "target"].map((name) => graph.input(name, "float32", fera.shape));
  const loss = ops.mul(feclLoss(from!, adapted!, wanted!, options), options.feclWeight);
  graph.output("loss", loss);
  const { gradients } = await import("../../autodiff/index.js");
  graph.output("gradient", gradients(loss, [adapted!])[0]!);
  const compiled = await compile(graph, runtime);
  try {
    const result = await compiled.run({ base, fera, target });
    return { loss: (result.loss!.data as Float32Array)[0]!, gradient: result.gradient as Tensor<"float32"> };
  } finally {
    await compiled.release();
  }
}
