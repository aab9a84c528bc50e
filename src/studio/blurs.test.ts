import { describe, expect, it } from "vitest";
import type { ImageDataset } from "../training/index.js";
import { Blurs } from "./blurs.js";

const SIDE = 16;

/** Plain images, of which each takes a while to read. */
function slowSet(size: number, seen: string[], delayMs = 5): ImageDataset {
  const set: Partial<ImageDataset> = {
    size,
    imageSize: SIDE,
    pixelKey: (index) => `${index}`,
    shape: () => ({ width: SIDE, height: SIDE }),
    image: async (index) => {
      seen.push(`${index}`);
      await new Promise((resolve) => setTimeout(resolve, delayMs));
      return new Float32Array(3 * SIDE * SIDE);
    },
  };
  return set as ImageDataset;
}

describe("Blurs", () => {
  it("looks at every image once, however many ask at a time", async () => {
    const seen: string[] = [];
    const set = slowSet(20, seen);
    const blurs = new Blurs(() => undefined, 60_000);
    const [of] = await Promise.all(Array.from({ length: 4 }, () => blurs.of("set", set)));
    expect(seen).toEqual(Array.from({ length: 20 }, (_, i) => `${i}`));
    expect([of!(0), of!(19)]).toEqual([false, false]);
  });

  it("keeps a page waiting for a large set once only, and tells when the rest is known", async () => {
    const seen: string[] = [];
    const set = slowSet(300, seen, 10);
    let told = 0;
    const blurs = new Blurs(() => told++, 200);
    const first = await blurs.of("set", set);
    expect(first(0)).toBe(false);
    expect(first(299)).toBeUndefined();
    await blurs.of("set", set);
    expect(seen.length).toBeLessThan(300);
    await expect.poll(() => told, { timeout: 30_000 }).toBe(1);
    expect(seen).toHaveLength(300);
    expect((await blurs.of("set", set))(299)).toBe(false);
  });
});
