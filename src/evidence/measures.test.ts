import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FeRAConfig, FeRAModel } from "../adapters/index.js";
import { drawingFeatures } from "../demo/nearest.js";
import { createObjective } from "../diffusion/index.js";
import { UNet2DConditionModel } from "../models/index.js";
import "../runtime/node.js";
import "../storage/node.js";
import { Generator, randn } from "../tensor/random.js";
import { rowsInMemory } from "../training/encoded-dataset.js";
import { noisePredictionError } from "../training/evaluation.js";
import { analyzeGates, explainedByTimestep, orthonormal, subspaceOverlap } from "./gate-analysis.js";
import { distances, driftBetween, measureErrors } from "./measures.js";

const generator = new Generator(5);
const rows = rowsInMemory({
  latents: randn([3, 4, 8, 8], { generator }),
  conditioning: { encoderHiddenStates: randn([3, 5, 24], { generator }) },
  empty: { encoderHiddenStates: randn([1, 5, 24], { generator }) },
});
const objective = createObjective({ num_train_timesteps: 1000, beta_schedule: "scaled_linear" });

let unet: UNet2DConditionModel;
beforeAll(async () => {
  unet = await UNet2DConditionModel.fromPretrained("test/reference/unet-sd15", { subfolder: "unet" });
});
afterAll(() => unet.release());

describe("errors", () => {
  it("are those of fera evaluate, as means of rows, timesteps and bands", async () => {
    const options = { objective, seed: 4, timestepsPerImage: 3 };
    const { error, rows: own, byBand, byTimestep, residuals } = await measureErrors(unet, rows, options);
    expect(error).toBeCloseTo((await noisePredictionError(unet, rows, options)).error, 6);
    expect(own.reduce((sum, value) => sum + value, 0) / 3).toBeCloseTo(error, 9);
    expect(Object.values(byBand).reduce((sum, value) => sum + value, 0)).toBeCloseTo(error, 6);
    expect(byTimestep.length).toBeGreaterThan(2);
    expect(driftBetween(residuals, residuals)).toBe(0);
    const zeros = residuals.map((residual) => new Float32Array(residual.length));
    expect(driftBetween(residuals, zeros)).toBeCloseTo(error, 6);
  });
});

/** A square of one colour on another. */
function square(inside: number, outside: number, side = 20) {
  const data = new Uint8Array(3 * 32 * 32).fill(outside);
  for (let y = 0; y < side; y++)
    for (let x = 0; x < side; x++) data.fill(inside, 3 * (y * 32 + x), 3 * (y * 32 + x) + 3);
  return drawingFeatures({ width: 32, height: 32, data });
}

describe("distances of drawings", () => {
  it("are 0 for the same drawing, and shape is blind to colours exchanged", () => {
    expect(distances(square(0, 255), square(0, 255))).toEqual({ lab: 0, edges: 0, shape: 0 });
    const inverted = distances(square(0, 255), square(255, 0));
    expect(inverted.lab).toBeCloseTo(1, 2);
    expect(inverted.shape).toBeLessThan(1e-6);
  });

  it("of shapes grow with what differs, up to 1 where nothing is shared", () => {
    const near = distances(square(0, 255, 20), square(0, 255, 21)).shape;
    const far = distances(square(0, 255, 20), square(0, 255, 9)).shape;
    expect(near).toBeLessThan(far);
    expect(far).toBeLessThanOrEqual(1 + 1e-6);
    expect(distances(square(9, 9), square(0, 255)).shape).toBeCloseTo(0.5, 6);
  });
});

describe("what the timestep explains", () => {
  it("is all where images are alike, nothing where timesteps are, and undefined where nothing varies", () => {
    const table = (of: (t: number, image: number) => number) => [0, 1, 2].map((t) => [0, 1].map((i) => [of(t, i), 1]));
    expect(explainedByTimestep(table((t) => t))).toBeCloseTo(1, 12);
    expect(explainedByTimestep(table((_, image) => image))).toBeCloseTo(0, 12);
    // Variances ¼ within and ⅔ between: ⅔ of 11/12.
    expect(explainedByTimestep(table((t, image) => t + image))).toBeCloseTo(2 / 3 / (11 / 12), 12);
    expect(explainedByTimestep(table(() => 4))).toBeUndefined();
  });
});

describe("subspaces", () => {
  it("overlap fully when equal, not when perpendicular, half when one direction is shared, and r/n by chance", () => {
    const e = (...at: number[]) => at.map((i) => Float64Array.from({ length: 6 }, (_, j) => (i === j ? 2 : 0)));
    expect(subspaceOverlap(orthonormal(e(0, 1)), orthonormal(e(1, 0)))).toBeCloseTo(1, 12);
    expect(subspaceOverlap(orthonormal(e(0, 1)), orthonormal(e(2, 3)))).toBeCloseTo(0, 12);
    expect(subspaceOverlap(orthonormal(e(0, 1)), orthonormal(e(1, 2)))).toBeCloseTo(0.5, 12);
    expect(orthonormal([...e(0), ...e(0)])).toHaveLength(1);
    const drawn = () =>
      orthonormal(Array.from({ length: 8 }, () => Float64Array.from(randn([64], { generator }).data)));
    const overlaps = Array.from({ length: 40 }, () => subspaceOverlap(drawn(), drawn()));
    expect(overlaps.reduce((sum, value) => sum + value, 0) / 40).toBeCloseTo(8 / 64, 1);
  });
});

describe("gates", () => {
  const targetModules = ["attn2.to_q", "attn2.to_v"];
  const adapted = (router: "uniform" | "energies") => {
    const sigma = { rule: "latent", divisor: 8 } as const;
    const fera = new FeRAModel(
      unet,
      new FeRAConfig({ rank: 2, alpha: 8, router, targetModules, sigma, bands: "complete" }),
    );
    const own = new Generator(9);
    for (const [name, { data, shape }] of fera.parameters) {
      if (name.endsWith(".up")) data.set(randn(shape, { generator: own }).data);
      if (name === "router.net.2.weight") data.set(randn(shape, { generator: own }).data.map((value) => 4 * value));
    }
    return fera;
  };

  it("that never change lose nothing when they are frozen", async () => {
    const result = await analyzeGates(adapted("uniform"), rows, { objective, seed: 1 });
    expect(result.gatesByTimestep).toBeUndefined();
    expect(result.frozen / result.live).toBeCloseTo(1, 5);
    expect(result.frozenAtTimestep / result.live).toBeCloseTo(1, 5);
    expect(result.meanGates).toHaveLength(8);
  });

  it("that follow energies are explained by the timestep as far as energies are, and freezing tells", async () => {
    const result = await analyzeGates(adapted("energies"), rows, { objective, seed: 1 });
    expect(result.gatesByTimestep).toBeGreaterThan(0);
    expect(result.gatesByTimestep).toBeLessThan(1);
    expect(result.energiesByTimestep).toBeLessThan(1);
    expect(result.energySpread.every((spread) => spread > 0)).toBe(true);
    expect(result.frozenAtTimestep).not.toBe(result.live);
    expect(result.overlap!.downByChance).toBeCloseTo(2 / 24, 0);
  });
});
