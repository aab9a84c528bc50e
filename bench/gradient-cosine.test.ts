import { expect, it } from "vitest";
import { compareGradients } from "./gradient-cosine.js";

const name = (layer: string, part: string) => `base_model.${layer}.experts.0.lora_${part}.weight`;

it("finds the layer whose gradients have turned most, over all its tensors", () => {
  const exact = new Map([
    [name("a.to_q", "down"), Float32Array.of(1, 0)],
    [name("a.to_q", "up"), Float32Array.of(0, 2)],
    [name("a.to_k", "down"), Float32Array.of(3, 4)],
    ["router.net.0.bias", Float32Array.of(1)],
  ]);
  const turned = new Map([...exact, [name("a.to_q", "down"), Float32Array.of(0, 1)]]);
  expect(compareGradients(turned, exact)).toEqual({
    gradientCosine: 4 / 5,
    worstLayer: "a.to_q",
    gradientError: Math.sqrt(2 / 31),
  });
  expect(compareGradients(exact, exact).gradientCosine).toBeCloseTo(1, 12);
  expect(compareGradients(exact, exact).gradientError).toBe(0);
  expect(() => compareGradients(new Map(), exact)).toThrow(/a\.to_q.*missing/);
});
