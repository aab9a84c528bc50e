import { describe, expect, it } from "vitest";
import { clipGradients, gradientNorm } from "./gradient-clipping.js";

describe("clipGradients", () => {
  const make = () =>
    new Map([
      ["a", Float32Array.of(3, 0)],
      ["b", Float32Array.of(0, -4)],
    ]);

  it("scales all gradients by one factor and returns the norm before", () => {
    const gradients = make();
    expect(gradientNorm(gradients)).toBe(5);
    expect(clipGradients(gradients, 1)).toBe(5);
    expect(gradients.get("a")![0]).toBeCloseTo(3 / (5 + 1e-6), 6);
    expect(gradients.get("b")![1]).toBeCloseTo(-4 / (5 + 1e-6), 6);
  });

  it("leaves gradients within the norm as they are", () => {
    const gradients = make();
    expect(clipGradients(gradients, 6)).toBe(5);
    expect(clipGradients(gradients, Number.POSITIVE_INFINITY)).toBe(5);
    expect(gradients).toEqual(make());
  });

  it("returns a norm that is not finite without spreading it", () => {
    const gradients = make().set("c", Float32Array.of(Number.NaN));
    expect(clipGradients(gradients, 1)).toBeNaN();
    expect(gradients.get("a")![0]).toBe(3);
    expect(clipGradients(make().set("c", Float32Array.of(Number.POSITIVE_INFINITY)), 1)).toBe(Number.POSITIVE_INFINITY);
    expect(gradientNorm(new Map())).toBe(0);
  });

  it("refuses a norm that is not above 0", () => {
    for (const maxNorm of [0, -1, Number.NaN]) expect(() => clipGradients(make(), maxNorm)).toThrow(/maxNorm/);
  });
});
