import { expect, it } from "vitest";
import { relativeError } from "../../test/support/relative-error.js";
import { Generator, randn } from "../tensor/random.js";
import { tensor } from "../tensor/tensor.js";
import {
  type AverageSnapshot,
  PowerFunctionAverages,
  postHocAverage,
  postHocWeights,
  powerOfWidth,
} from "./post-hoc-average.js";

const STEPS = 400;

/** A walk with drift, as parameters do one. */
function walk() {
  const weight = tensor(new Float32Array(50), [5, 10]);
  const noise = randn([STEPS, 50], { generator: new Generator(1) }).data;
  const move = (step: number) => {
    for (let i = 0; i < 50; i++) weight.data[i] = weight.data[i]! + 0.1 * noise[step * 50 + i]! + 0.02;
  };
  return { parameters: new Map([["w", weight]]), move };
}

it("the power of a width solves the paper's cubic", () => {
  // σ_rel 0.05 and 0.10 are γ = 16.97 and 6.94 in the paper.
  expect(powerOfWidth(0.05)).toBeCloseTo(16.97, 2);
  expect(powerOfWidth(0.1)).toBeCloseTo(6.94, 2);
  for (const width of [0.01, 0.05, 0.1, 0.25]) {
    const [g, c] = [powerOfWidth(width), width ** -2];
    expect((g ** 3 + 7 * g ** 2 + (16 - c) * g + 12 - c) / c).toBeCloseTo(0, 9);
  }
  for (const width of [0, 0.3, -1, Number.NaN])
    expect(() => powerOfWidth(width)).toThrow(/width must lie between 0 and/);
});

it("an average weighs time by its power", () => {
  const parameters = new Map([["w", tensor([0])]]);
  const averages = new PowerFunctionAverages(parameters, [0.1]);
  const power = powerOfWidth(0.1);
  let [sum, total] = [0, 0];
  for (let t = 1; t <= STEPS; t++) {
    parameters.get("w")!.data[0] = Math.sin(t / 40);
    averages.update();
    // The increments of (t/T)^(γ+1), whose derivative is the weight.
    const weight = t ** (power + 1) - (t - 1) ** (power + 1);
    sum += weight * Math.sin(t / 40);
    total += weight;
  }
  expect(averages.snapshots()[0]!.values.get("w")!.data[0]).toBeCloseTo(sum / total, 5);
});

it("any width can be made afterwards from the snapshots of two", () => {
  const { parameters, move } = walk();
  const kept = new PowerFunctionAverages(parameters);
  const wanted = new PowerFunctionAverages(parameters, [0.07, 0.15]);
  const snapshots: AverageSnapshot[] = [];
  for (let step = 0; step < STEPS; step++) {
    move(step);
    kept.update();
    wanted.update();
    if ((step + 1) % 40 === 0) snapshots.push(...kept.snapshots());
  }
  const average = (width: number) => postHocAverage(snapshots, { width }).get("w")!;
  expect(average(0.07).shape).toEqual([5, 10]);
  for (const { width, values } of wanted.snapshots()) {
    expect(relativeError(average(width).data, values.get("w")!.data), `${width}`).toBeLessThan(5e-3);
  }
  // One that was kept comes back as it was.
  const last = snapshots.at(-1)!;
  expect(relativeError(average(last.width).data, last.values.get("w")!.data)).toBeLessThan(1e-5);
});

it("goes on to the bit from its snapshots", () => {
  const run = (restoreAt: number) => {
    const { parameters, move } = walk();
    let averages = new PowerFunctionAverages(parameters);
    for (let step = 0; step < 20; step++) {
      if (step === restoreAt) {
        const before = averages.snapshots();
        averages = new PowerFunctionAverages(parameters);
        averages.restore(before);
      }
      move(step);
      averages.update();
    }
    return averages.snapshots();
  };
  expect(run(10)).toEqual(run(-1));
});

it("refuses what cannot be made", () => {
  expect(() => postHocWeights([], { step: 1, width: 0.1 })).toThrow(/no snapshot/);
  expect(() => postHocWeights([{ step: 5, width: 0.1 }], { step: 6, width: 0.1 })).toThrow(/got 6 and 5/);
  const averages = new PowerFunctionAverages(new Map());
  expect(() => averages.restore([])).toThrow(/one snapshot for each width/);
  expect(() => new PowerFunctionAverages(new Map(), [])).toThrow(/got none/);
});
