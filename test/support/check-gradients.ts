// One helper for every differentiable operator: its value against a reference, its gradient against finite differences.

import { expect } from "vitest";
import { gradients } from "../../src/autodiff/index.js";
import { Graph, mul, reduceSum, type Value } from "../../src/graph/index.js";
import { lower, type Target } from "../../src/onnx/index.js";
import { backend } from "../../src/runtime/backend.js";
import "../../src/runtime/node.js";
import { Generator, randn, randperm } from "../../src/tensor/random.js";
import { type Tensor, tensor } from "../../src/tensor/tensor.js";
import { relativeError } from "./relative-error.js";

/** Relative L2 distance that float32 central differences reach on these small cases. */
export const FINITE_DIFFERENCE_TOLERANCE = 2e-3;

/** Runs a graph once on the CPU, lowered for `target`. */
export async function runGraph(graph: Graph, feeds: Record<string, Tensor>, target: Target = "cpu") {
  const session = await backend().create(lower(graph, target), { device: "cpu" });
  try {
    return await session.run(feeds);
  } finally {
    await session.release();
  }
}

/** A case: inputs that are differentiated (float32), others that are only fed, and the function. */
export interface GradientCase {
  inputs: Record<string, Tensor<"float32"> | readonly number[]>;
  fixed?: Record<string, Tensor>;
  build: (values: Record<string, Value>) => Value;
  /** Step of the central difference. */
  step?: number;
  seed?: number;
  tolerance?: number;
}

/**
 * Checks d(Σ w∘f)/dx against (Σ w∘f(x + h d) − Σ w∘f(x − h d)) / 2h, with random weights w, along every coordinate
 * of small inputs and along 24 random coordinates of larger ones; on the CPU's kernels and on the portable ones.
 */
export async function checkGradients({ inputs, fixed = {}, build, step = 1e-2, seed = 0, tolerance }: GradientCase) {
  const generator = new Generator(seed);
  const points: Record<string, Tensor<"float32">> = {};
  for (const [name, given] of Object.entries(inputs)) {
    points[name] = Array.isArray(given) ? randn(given as number[], { generator }) : (given as Tensor<"float32">);
  }
  for (const target of ["cpu", "portable"] as const) {
    const graph = new Graph();
    const values: Record<string, Value> = {};
    for (const [name, point] of Object.entries({ ...points, ...fixed }))
      values[name] = graph.input(name, point.dtype, point.shape);
    const y = build(values);
    const weights = graph.input("weights", "float32", y.shape);
    const loss = reduceSum(mul(y, weights));
    const names = Object.keys(points);
    const slopes = gradients(
      loss,
      names.map((name) => values[name]!),
    );
    graph.output("y", y);
    for (const [i, name] of names.entries()) graph.output(`gradient.${name}`, slopes[i]!);
    const session = await backend().create(lower(graph, target), { device: "cpu" });
    const feeds: Record<string, Tensor> = {
      ...points,
      ...fixed,
      weights: randn(y.shape, { generator: new Generator(seed + 1) }),
    };
    const w = feeds.weights!.data as Float32Array;
    const evaluate = async (changed: Record<string, Tensor>): Promise<number> => {
      const out = (await session.run({ ...feeds, ...changed })).y!.data as Float32Array;
      return out.reduce((sum, value, i) => sum + value * w[i]!, 0);
    };
    try {
      const result = await session.run(feeds);
      for (const name of names) {
        const point = points[name]!;
        const count = Math.min(point.size, 24);
        const coordinates = randperm(point.size, { generator }).data.slice(0, count);
        const numeric: number[] = [];
        const analytic: number[] = [];
        for (const at of Array.from(coordinates, Number)) {
          const shift = (by: number) => {
            const data = point.data.slice();
            data[at] = data[at]! + by;
            return { [name]: tensor(data, point.shape) };
          };
          numeric.push(((await evaluate(shift(step))) - (await evaluate(shift(-step)))) / (2 * step));
          analytic.push((result[`gradient.${name}`]!.data as Float32Array)[at]!);
        }
        const error = relativeError(analytic, numeric);
        expect(error, `gradient in "${name}" (${target})`).toBeLessThan(tolerance ?? FINITE_DIFFERENCE_TOLERANCE);
      }
    } finally {
      await session.release();
    }
  }
}
