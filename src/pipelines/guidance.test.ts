import { describe, expect, it } from "vitest";
import { ShapeError } from "../errors.js";
import { Generator, randn } from "../tensor/random.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import { guided } from "./guidance.js";

const deviation = (values: Float32Array): number => {
  const mean = values.reduce((sum, value) => sum + value) / values.length;
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1));
};
const sample = (x: Tensor<"float32">, index: number) => x.data.subarray(index * 6, (index + 1) * 6);

describe("guidance", () => {
  it("goes from the unconditional prediction through the conditional one", () => {
    const result = guided(tensor([1, 2, 3, 5], [2, 2]), { scale: 3, rescale: 0 });
    expect(result).toEqual(tensor([7, 11], [1, 2]));
  });

  it("with full rescaling has the conditional prediction's spread, sample by sample", () => {
    const output = randn([4, 1, 2, 3], { generator: new Generator(0) });
    const plain = guided(output, { scale: 8, rescale: 0 });
    const full = guided(output, { scale: 8, rescale: 1 });
    const half = guided(output, { scale: 8, rescale: 0.5 });
    expect(full.shape).toEqual([2, 1, 2, 3]);
    for (const index of [0, 1]) {
      expect(deviation(sample(full, index))).toBeCloseTo(deviation(sample(output, 2 + index)), 5);
      for (const i of [0, 5]) {
        const between = (sample(plain, index)[i]! + sample(full, index)[i]!) / 2;
        expect(sample(half, index)[i]).toBeCloseTo(between, 5);
      }
    }
  });

  it("needs both halves", () => {
    expect(() => guided(tensor([1, 2, 3], [3]), { scale: 3, rescale: 0 })).toThrow(ShapeError);
  });
});
