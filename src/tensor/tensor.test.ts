import { expect, it } from "vitest";
import { allFinite } from "./tensor.js";

it("finds any element that is not finite", () => {
  expect(allFinite(Float32Array.of())).toBe(true);
  expect(allFinite(Float32Array.of(3.4e38, -3.4e38, 1e-45, -0))).toBe(true);
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    for (const at of [0, 3, 6]) expect(allFinite(new Float32Array(7).fill(bad, at, at + 1))).toBe(false);
  }
});
