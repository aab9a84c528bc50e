import { expect, it } from "vitest";
import { Generator, randn } from "../tensor/random.js";
import { errorByBand } from "./error-bands.js";

const [HEIGHT, WIDTH] = [8, 6];
const pattern = (value: (y: number, x: number) => number) =>
  Float32Array.from({ length: HEIGHT * WIDTH }, (_, i) => value(Math.floor(i / WIDTH), i % WIDTH));

it("splits an error into bands that add up to it", () => {
  const { data } = randn([3, HEIGHT, WIDTH], { generator: new Generator(1) });
  const bands = errorByBand(data, HEIGHT, WIDTH);
  const mean = data.reduce((sum, value) => sum + value * value, 0) / data.length;
  expect(bands.low + bands.middle + bands.high).toBeCloseTo(mean, 6);
  // White noise has as much in every coefficient: 2·2, then 4·3 − 4, of 8·6.
  expect(bands.high).toBeGreaterThan(bands.middle);
  expect(bands.middle).toBeGreaterThan(bands.low);
});

it("finds a constant in the lowest band, and what alternates from pixel to pixel in the highest", () => {
  const constant = errorByBand(
    pattern(() => 2),
    HEIGHT,
    WIDTH,
  );
  expect(constant.low).toBeCloseTo(4, 10);
  expect(constant.middle + constant.high).toBeCloseTo(0, 10);
  // u = 3 of 8: between a quarter and half of the highest frequency.
  const waves = errorByBand(
    pattern((y) => Math.cos((Math.PI * (y + 0.5) * 3) / HEIGHT)),
    HEIGHT,
    WIDTH,
  );
  expect(waves.middle).toBeCloseTo(0.5, 6);
  const checks = errorByBand(
    pattern((y, x) => ((x + y) % 2 === 0 ? 1 : -1)),
    HEIGHT,
    WIDTH,
  );
  expect(checks.high).toBeGreaterThan(0.9);
});
