import { describe, expect, it } from "vitest";
import { ConfigError, ShapeError } from "../errors.js";
import { readSafetensors } from "../storage/tensor-file.js";
import { Generator, rand, randint, randn, randperm } from "./random.js";
import type { Tensor } from "./tensor.js";

// Golden draws of torch 1.13 on the CPU; the file's metadata gives their order.
const { tensors: golden } = await readSafetensors("test/reference/random.safetensors");
// Normals near the origin of the largest radius lose most to torch's approximate logarithm.
const NORMAL_TOLERANCE = 2e-6;

function closeTo(actual: Tensor, name: string): void {
  const expected = golden.get(name)!;
  expect(actual.shape).toEqual(expected.shape);
  let worst = 0;
  for (let i = 0; i < expected.size; i++)
    worst = Math.max(worst, Math.abs(Number(actual.data[i]) - Number(expected.data[i])));
  expect(worst).toBeLessThan(NORMAL_TOLERANCE);
}

describe("Generator", () => {
  it.each(["0", "42", "2147483655"])("draws torch's numbers in torch's order for seed %s", (seed) => {
    for (const generator of [new Generator(Number(seed)), new Generator(BigInt(seed))]) {
      closeTo(randn([2, 4, 8, 8], { generator }), `${seed}.0.randn`);
      expect(randint(0, 1000, [5], { generator })).toEqual(golden.get(`${seed}.1.randint`));
      closeTo(randn([3], { generator }), `${seed}.2.randn`);
      expect(rand([4, 5], { generator })).toEqual(golden.get(`${seed}.3.rand`));
      closeTo(randn([37], { generator }), `${seed}.4.randn`);
      expect(randperm(11, { generator })).toEqual(golden.get(`${seed}.5.randperm`));
    }
  });

  it("gives MT19937's published 10000th output for seed 5489", () => {
    const generator = new Generator(5489);
    for (let i = 0; i < 9999; i++) generator.random32();
    expect(generator.random32()).toBe(4123659995);
  });

  it("goes on from a saved state, the cached normal included", () => {
    const generator = new Generator(7);
    randn([3], { generator });
    rand([700], { generator });
    const state = generator.getState();
    const expected = [randn([1], { generator }), randn([20], { generator }), randperm(9, { generator })];
    const resumed = new Generator(0);
    resumed.setState(state);
    expect([
      randn([1], { generator: resumed }),
      randn([20], { generator: resumed }),
      randperm(9, { generator: resumed }),
    ]).toEqual(expected);
  });

  it("rejects a state it did not give, and keeps its own", () => {
    const generator = new Generator(1);
    const state = generator.getState();
    expect(() => generator.setState(state.slice(1))).toThrow(ConfigError);
    expect(() => generator.setState(state.slice().fill(255, 0, 8))).toThrow(/not a state/);
    expect(generator.getState()).toEqual(state);
  });

  it.each([1.5, Number.NaN, 2 ** 60])("rejects the seed %s", (seed) => {
    expect(() => new Generator(seed)).toThrow(ConfigError);
  });

  it("takes negative and 64-bit seeds by their low 32 bits", () => {
    expect(new Generator(-1).random32()).toBe(new Generator(2 ** 32 - 1).random32());
    expect(new Generator(2n ** 40n + 3n).random32()).toBe(new Generator(3).random32());
  });
});

describe("random tensors", () => {
  it("draw from a shared generator when none is given", () => {
    expect(randn([64])).not.toEqual(randn([64]));
  });

  it("may be empty or scalar", () => {
    const generator = new Generator(0);
    expect(randn([0, 4], { generator }).size).toBe(0);
    expect(randperm(0, { generator }).size).toBe(0);
    expect(rand([], { generator }).shape).toEqual([]);
  });

  it("cover negative and wide integer ranges", () => {
    const generator = new Generator(0);
    const narrow = randint(-3, -1, [100], { generator }).data;
    expect(new Set(narrow)).toEqual(new Set([-3n, -2n]));
    const wide = randint(-(2 ** 40), 2 ** 40, [100], { generator }).data;
    expect(wide.some((value) => value > 2n ** 33n)).toBe(true);
    expect(wide.every((value) => value >= -(2n ** 40n) && value < 2n ** 40n)).toBe(true);
  });

  it("reject empty ranges, fractions and bad shapes", () => {
    expect(() => randint(5, 5, [1])).toThrow(/low < high; got low=5, high=5/);
    expect(() => randint(0, 1.5, [1])).toThrow(ConfigError);
    expect(() => randperm(-1)).toThrow(ConfigError);
    expect(() => randn([-1])).toThrow(ShapeError);
    expect(() => rand([0.5])).toThrow(ShapeError);
  });
});
