import sharp from "sharp";
import { describe, expect, it } from "vitest";
import type { RgbImage } from "./pixels.js";
import { looksBlurred, sharpnessOf } from "./sharpness.js";

const SIDE = 128;

/** A photo's kind of content: edges of many directions, shades, and a little grain. */
async function scene(blur: number): Promise<RgbImage> {
  const shapes = Array.from({ length: 40 }, (_, i) => {
    const [x, y, r] = [(i * 53) % SIDE, (i * 31) % SIDE, 4 + ((i * 7) % 13)];
    return `<circle cx="${x}" cy="${y}" r="${r}" fill="hsl(${(i * 47) % 360} 60% ${30 + ((i * 11) % 50)}%)"/>`;
  });
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${SIDE}" height="${SIDE}">${shapes.join("")}</svg>`;
  const drawn = sharp(Buffer.from(svg)).flatten({ background: "#9ab" });
  const { data } = await (blur > 0 ? drawn.blur(blur) : drawn).raw().toBuffer({ resolveWithObject: true });
  return { width: SIDE, height: SIDE, data };
}

describe("the sharpness of a picture", () => {
  it("falls with every blur, and tells a blurred picture from its sharp original", async () => {
    const pictures = await Promise.all([0, 1, 2, 4].map(scene));
    const measured = pictures.map(sharpnessOf);
    for (const [index, { detail }] of measured.entries()) {
      if (index > 0) expect(detail).toBeLessThan(measured[index - 1]!.detail / 2);
    }
    expect(measured.map(looksBlurred)).toEqual([false, false, true, true]);
  });

  it("is the variance of the Laplacian of brightness", () => {
    const data = new Uint8Array(3 * 4 * 3).fill(100);
    // One white pixel inside: the Laplacian is −4 · 155 there and 155 beside it.
    data.fill(255, 3 * 5, 3 * 6);
    const { detail } = sharpnessOf({ width: 4, height: 3, data });
    const mean = (-4 * 155 + 155) / 2;
    expect(detail).toBeCloseTo(((-4 * 155 - mean) ** 2 + (155 - mean) ** 2) / 2, 1);
  });

  it("says nothing of a plain surface", () => {
    const data = new Uint8Array(3 * 16 * 16).fill(120);
    expect(looksBlurred(sharpnessOf({ width: 16, height: 16, data }))).toBe(false);
  });
});
