import { beforeAll, describe, expect, it } from "vitest";
import { type ObjectiveGolden, objectiveGolden } from "../../test/support/objective-golden.js";
import { relativeError } from "../../test/support/relative-error.js";
import { Generator, randn } from "../tensor/random.js";
import { Tensor } from "../tensor/tensor.js";
import { addCoarserNoise, checkNoiseOptions, drawNoise, type NoiseOptions } from "./training-noise.js";

const SHAPE = [2, 4, 12, 20];
const draw = (options: NoiseOptions) => {
  const generator = new Generator(8);
  return { ...drawNoise(SHAPE, options, generator), next: generator.random32() };
};

let golden: ObjectiveGolden;
beforeAll(async () => {
  golden = await objectiveGolden();
});

describe("noise", () => {
  it("in several resolutions agrees with kohya's from the same numbers", () => {
    const given = golden.tensor("multires.noise");
    const noise = new Tensor("float32", given.shape, given.data.slice());
    const coarser: Tensor<"float32">[] = [];
    while (golden.has(`multires.coarser.${coarser.length}`))
      coarser.push(golden.tensor(`multires.coarser.${coarser.length}`));
    expect(coarser.length).toBe(3);
    addCoarserNoise(noise, coarser, golden.settings.multires.discount);
    expect(relativeError(noise.data, golden.tensor("multires.result").data)).toBeLessThan(1e-6);
  });

  it("in several resolutions keeps its strength, and has more of what is coarse", () => {
    const { noise } = draw({ multiresNoiseIterations: 6, multiresNoiseDiscount: 0.8 });
    const mean = (values: Float32Array) => values.reduce((sum, value) => sum + value, 0) / values.length;
    expect(mean(noise.data.map((value) => value ** 2))).toBeCloseTo(1, 1);
    const planeMeans = (data: Float32Array) =>
      Float32Array.from({ length: 8 }, (_, i) => mean(data.subarray(i * 240, (i + 1) * 240)) ** 2);
    expect(mean(planeMeans(noise.data))).toBeGreaterThan(4 * mean(planeMeans(draw({}).noise.data)));
  });

  it("of an input perturbation is added to the input only", () => {
    const plain = draw({});
    const { noise, inputNoise } = draw({ inputPerturbation: 0.1 });
    expect(noise).toEqual(plain.noise);
    const generator = new Generator(8);
    randn(SHAPE, { generator });
    const more = randn(SHAPE, { generator }).data;
    const expected = plain.noise.data.map((value, i) => value + 0.1 * more[i]!);
    expect(relativeError(inputNoise.data, expected)).toBeLessThan(1e-7);
  });

  it("of an input perturbation of random strength has from none to all of it", () => {
    const plain = draw({ inputPerturbation: 0.1 });
    const random = draw({ inputPerturbation: 0.1, inputPerturbationRandom: true });
    expect(random.noise).toEqual(plain.noise);
    const generator = new Generator(8);
    randn(SHAPE, { generator });
    const strength = 0.1 * generator.uniform();
    const more = randn(SHAPE, { generator }).data;
    const expected = plain.noise.data.map((value, i) => value + strength * more[i]!);
    expect(relativeError(random.inputNoise.data, expected)).toBeLessThan(1e-7);
  });

  it("has an offset of random strength, from none to all of it", () => {
    const plain = draw({}).noise.data;
    const ofStrength = (options: NoiseOptions) => {
      const { data } = draw(options).noise;
      return data[0]! - plain[0]!;
    };
    const generator = new Generator(8);
    randn(SHAPE, { generator });
    const strength = generator.uniform();
    const offset = randn([2, 4], { generator }).data[0]!;
    expect(ofStrength({ noiseOffset: 0.5, noiseOffsetRandom: true })).toBeCloseTo(0.5 * strength * offset, 5);
  });

  it("draws nothing more for what is off", () => {
    const off = {
      noiseOffset: 0,
      noiseOffsetRandom: true,
      multiresNoiseIterations: 0,
      multiresNoiseDiscount: 0.9,
      inputPerturbation: 0,
      inputPerturbationRandom: true,
    };
    const { noise, inputNoise, next } = draw(off);
    const generator = new Generator(8);
    expect(noise).toEqual(randn(SHAPE, { generator }));
    expect(inputNoise).toBe(noise);
    expect(next).toBe(generator.random32());
  });
});

it.each([
  [{ inputPerturbation: -1 }, /inputPerturbation must be a finite number, 0 or more; got -1/],
  [{ multiresNoiseIterations: 1.5 }, /multiresNoiseIterations must be an integer of 0 or more; got 1.5/],
  [{ multiresNoiseDiscount: 1.1 }, /multiresNoiseDiscount must lie in 0 … 1; got 1.1/],
])("refuses %j", (options, message) => {
  expect(() => checkNoiseOptions(options)).toThrow(message);
});
