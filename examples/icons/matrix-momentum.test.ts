import { describe, expect, it } from "vitest";
import "../../src/runtime/node.js";
import { Generator, randn } from "../../src/tensor/random.js";
import { sizeOf } from "../../src/tensor/tensor.js";
import { orthogonalized } from "../../src/training/optimizers/newton-schulz.js";
import type { Trainable } from "../../src/training/trainable.js";
import { relativeError } from "../../test/support/relative-error.js";
import { MatrixMomentum, OrthogonalizedModel } from "./matrix-momentum.js";

const MUON = { nsCoefficients: [3.4445, -4.775, 2.0315], nsSteps: 5, eps: 1e-7 } as const;

describe("matrices and convolutions of a whole model", () => {
  const generator = new Generator(1);
  const shapes = { kernel: [64, 48, 3, 3], tall: [512, 64], square: [96, 96], wide: [80, 100], bias: [64] };
  const make = () => new Map(Object.entries(shapes).map(([name, shape]) => [name, randn(shape, { generator })]));
  const parameters = make();
  const gradients = new Map([...make()].map(([name, { data }]) => [name, data]));
  const model = { parameters, compute: async () => ({ losses: { loss: 1 }, gradients }) } as unknown as Trainable;

  it("follow the momentum that the library's own Muon would make orthogonal, on either side; the rest its gradient", async () => {
    const optimizer = new MatrixMomentum(1e-3, [0.9, 0.99], 0);
    const orthogonal = await OrthogonalizedModel.compile(model, optimizer);
    const result = await orthogonal.compute({} as never);
    for (const [name, shape] of Object.entries(shapes)) {
      const gradient = gradients.get(name)!;
      if (shape.length === 1) {
        expect(result.gradients.get(name)).toBe(gradient);
        continue;
      }
      // The first step: M = 0.05·G, U = 0.05·G + 0.95·M.
      const update = Float64Array.from(gradient, (value) => value * 0.05 * 1.95);
      const expected = orthogonalized(update, shape[0]!, sizeOf(shape) / shape[0]!, MUON);
      expect(relativeError(result.gradients.get(name)!, Float32Array.from(expected)), name).toBeLessThan(1e-5);
    }
    await orthogonal.release();
  });

  it("step as far as AdamW would, so that its learning rates hold", () => {
    const optimizer = new MatrixMomentum(1e-3, [0.9, 0.99], 0);
    const before = parameters.get("wide")!.data.slice();
    const direction = new Float32Array(8000).fill(0.1);
    const step = { shapes: new Map([["wide", shapes.wide]]) };
    optimizer.step(new Map([["wide", parameters.get("wide")!.data]]), new Map([["wide", direction]]), step);
    // 0.2·sqrt(100)·1e-3·0.1.
    expect(before[0]! - parameters.get("wide")!.data[0]!).toBeCloseTo(2e-4, 6);
  });
});
