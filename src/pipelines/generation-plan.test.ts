import { describe, expect, it } from "vitest";
import { ConfigError, ShapeError } from "../errors.js";
import { type Tensor, tensor, zeros } from "../tensor/tensor.js";
import type { GenerateOptions } from "./generate-options.js";
import { generationPlan } from "./generation-plan.js";

const DEFAULTS = {
  ...{ channels: 4, scale: 8, height: 64, width: 96, guidanceScale: 7.5, strength: 0.8 },
  guidanceFactor: (scale: number) => scale,
};
const plan = (options: Partial<GenerateOptions>) => generationPlan({ prompt: "a", ...options }, DEFAULTS);
const image = (height: number, width: number): Tensor<"float32"> => zeros([3, height, width]);

describe("the plan of a run", () => {
  it("from text takes the model's size, and all steps", () => {
    expect(plan({ prompt: ["a", "b"], numImages: 3 })).toMatchObject({
      latentShape: [6, 4, 64, 96],
      firstStep: 0,
      guidanceScale: 7.5,
      guides: true,
      negativePrompts: undefined,
      startImages: undefined,
    });
  });

  it("from an image takes its size, and the last steps as strength says", () => {
    const { latentShape, firstStep, startImages } = plan({ image: image(16, 40), steps: 10, numImages: 2 });
    expect(latentShape).toEqual([2, 4, 2, 5]);
    expect(startImages!.shape).toEqual([1, 3, 16, 40]);
    expect(firstStep).toBe(2);
    expect(plan({ image: image(16, 40), steps: 10, strength: 1 }).firstStep).toBe(0);
    // As in diffusers, ⌊10 · 0.29⌋ steps are done.
    expect(plan({ image: image(16, 40), steps: 10, strength: 0.29 }).firstStep).toBe(8);
  });

  it("takes one image per prompt", () => {
    const images = [tensor(new Float32Array(192).fill(0.5), [3, 8, 8]), image(8, 8)];
    const { startImages } = plan({ prompt: ["a", "b"], image: images, width: 8, height: 8 });
    expect(startImages!.shape).toEqual([2, 3, 8, 8]);
    expect([startImages!.data[0], startImages!.data[192]]).toEqual([0.5, 0]);
  });

  it.each<[string, Partial<GenerateOptions>, typeof ConfigError | typeof ShapeError, RegExp]>([
    ["strength 0", { image: image(8, 8), strength: 0 }, ConfigError, /strength must be above 0, and 1 at most; got 0/],
    ["strength above 1", { image: image(8, 8), strength: 1.5 }, ConfigError, /strength must be above 0.*got 1\.5/],
    ["strength NaN", { image: image(8, 8), strength: Number.NaN }, ConfigError, /strength must be above 0/],
    [
      "a strength that leaves no step",
      { image: image(8, 8), strength: 0.1, steps: 5 },
      ConfigError,
      /leaves none to do.*strength of 0\.2 or more, or 10 steps/,
    ],
    ["strength without an image", { strength: 0.5 }, ConfigError, /strength is for runs that start from an image/],
    ["an image that does not fit", { image: image(8, 20) }, ShapeError, /the image's width must be.*16 and 24/],
    ["a grey image", { image: zeros([1, 8, 8]) }, ShapeError, /float32 \[3, height, width\].*\[1,8,8\]/],
    ["an image of bytes", { image: tensor(new Uint8Array(192), [3, 8, 8], "bool") }, ShapeError, /got bool/],
    ["images of two sizes", { prompt: ["a", "b"], image: [image(8, 8), image(8, 16)] }, ShapeError, /all of one size/],
    ["too many images", { image: [image(8, 8), image(8, 8)] }, ConfigError, /one per prompt; got 2/],
    ["no images", { image: [] }, ConfigError, /one per prompt; got 0/],
    ["an image that is a path", { image: "a.png" as unknown as Tensor }, ConfigError, /must be a tensor.*got string/],
    [
      "an image in 0 … 255",
      { image: tensor(new Float32Array(192).fill(7), [3, 8, 8]) },
      ConfigError,
      /values must lie in -1 … 1.*got 7/,
    ],
    ["a size that is not the image's", { image: image(8, 8), width: 16 }, ShapeError, /width must be the image's, 8/],
    ["guidance rescale above 1", { guidanceRescale: 2 }, ConfigError, /guidanceRescale must lie in 0 … 1; got 2/],
    ["half a layer", { clipSkip: 0.5 }, ConfigError, /clipSkip must be an integer of 0 or more/],
  ])("refuses %s", (_, options, kind, message) => {
    expect(() => plan(options)).toThrow(kind);
    expect(() => plan(options)).toThrow(message);
  });
});
