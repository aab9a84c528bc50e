import { describe, expect, it } from "vitest";
import { rasterizeIcons } from "../training/data/icons.js";
import { adaptationScore, drawingDistance, drawingFeatures, nearestOf, ownNearestShare } from "./nearest.js";

const SIZE = 64;
const names = ["red-apple", "green-apple", "rocket", "guitar", "banana"];

async function drawings(style: "noto" | "twemoji") {
  const rgb = await rasterizeIcons(style, names, SIZE, { cache: false });
  const each = 3 * SIZE * SIZE;
  return names.map((_, i) => ({ width: SIZE, height: SIZE, data: rgb.slice(i * each, (i + 1) * each) }));
}

const gray = (value: number) => ({
  width: SIZE,
  height: SIZE,
  data: new Uint8Array(3 * SIZE * SIZE).fill(value),
});

describe("the distance of drawings", () => {
  it("is 0 for the same drawing and that of black and white as Lab says", () => {
    expect(drawingDistance(drawingFeatures(gray(255)), drawingFeatures(gray(255)))).toBe(0);
    expect(drawingDistance(drawingFeatures(gray(255)), drawingFeatures(gray(0)))).toBeCloseTo(1, 4);
  });

  it("tells colours apart that are equally light", () => {
    const [red, green] = [gray(0), gray(0)];
    for (let i = 0; i < red.data.length; i += 3) {
      red.data[i] = 200;
      green.data[i + 1] = 122;
    }
    const [a, b] = [drawingFeatures(red), drawingFeatures(green)];
    const plane = 32 * 32;
    expect(Math.abs(a[0]! - b[0]!)).toBeLessThan(0.03);
    expect(Math.abs(a[plane]! - b[plane]!)).toBeGreaterThan(0.8);
    expect(drawingDistance(a, b)).toBeGreaterThan(0.5);
  });

  it("refuses images that do not reduce to 32×32", () => {
    expect(() => drawingFeatures({ width: 40, height: 40, data: new Uint8Array(4800) })).toThrow(
      /side that 32 divides/,
    );
  });
});

describe("the share that is nearest to its own", () => {
  it("is 1 for the true drawings, and falls where two are exchanged", async () => {
    const truths = (await drawings("noto")).map(drawingFeatures);
    expect(ownNearestShare(truths, truths)).toBe(1);
    const exchanged = [truths[1]!, truths[0]!, ...truths.slice(2)];
    expect(ownNearestShare(exchanged, truths)).toBeCloseTo(3 / 5);
    expect(ownNearestShare([truths[3]!], truths, [3])).toBe(1);
  });

  it("finds a drawing again after noise, as what is drawn is never exact", async () => {
    const truths = await drawings("noto");
    const features = truths.map(drawingFeatures);
    truths.forEach(({ data, ...size }, i) => {
      const noisy = data.map((value, j) => Math.min(255, Math.max(0, value + ((j * 7919) % 61) - 30)));
      expect(nearestOf(drawingFeatures({ ...size, data: noisy }), features)).toBe(i);
    });
  });
});

describe("the score of an adaptation", () => {
  it("counts what came closer than the base and what is nearest to its own", async () => {
    const [base, truths] = [
      (await drawings("noto")).map(drawingFeatures),
      (await drawings("twemoji")).map(drawingFeatures),
    ];
    expect(adaptationScore({ base, adapted: truths, truths })).toEqual({ adaptedNearest: 1, closerThanBase: 1 });
    expect(adaptationScore({ base, adapted: base, truths }).closerThanBase).toBe(0);
    const half = truths.map((truth, i) => (i % 2 === 0 ? truth : base[i]!));
    expect(adaptationScore({ base, adapted: half, truths }).closerThanBase).toBeCloseTo(3 / 5);
  });

  it("refuses lists of different lengths", () => {
    expect(() => adaptationScore({ base: [], adapted: [], truths: [] })).toThrow(/at least one/);
  });
});
