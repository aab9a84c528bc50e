import { describe, expect, it } from "vitest";
import { heldOutOf } from "./hold-out.js";

const unlike = (paths: readonly string[]) => paths.map((path, i) => ({ path, contentHash: String(i) }));

describe("heldOutOf", () => {
  it("holds out the share of the files, rounded down, and never one more", () => {
    for (const [count, share, expected] of [
      [19, 0.05, 0],
      [20, 0.05, 1],
      [39, 0.05, 1],
      [100, 0.29, 29],
      [5, 0, 0],
      [3, 0.999, 2],
    ] as const) {
      const paths = Array.from({ length: count }, (_, i) => `${i}.jpg`);
      expect(heldOutOf(unlike(paths), share).size, `${count} · ${share}`).toBe(expected);
    }
  });

  it("tells files of one name in different folders apart", () => {
    const paths = Array.from({ length: 40 }, (_, i) => `${i}/01.jpg`);
    expect(heldOutOf(unlike(paths), 0.1).size).toBe(4);
    const copies = paths.map((path) => ({ path, contentHash: "same" }));
    expect(heldOutOf(copies, 0.1).size).toBe(4);
  });

  it("holds out no file of which a copy is trained on, as long as there are others", () => {
    const paths = Array.from({ length: 40 }, (_, i) => `${i}.jpg`);
    const images = paths.map((path, i) => ({ path, contentHash: i < 30 ? `twin ${i >> 1}` : String(i) }));
    const held = heldOutOf(images, 0.25);
    expect([...held].map((path) => Number.parseInt(path, 10)).every((i) => i >= 30)).toBe(true);
    expect(held.size).toBe(10);
  });

  it("does not depend on the order, on how letters are composed, nor much on other files", () => {
    const paths = Array.from({ length: 200 }, (_, i) => `Füße/${i}.jpg`);
    const held = heldOutOf(unlike(paths), 0.1);
    expect(heldOutOf(unlike([...paths].reverse()), 0.1)).toEqual(held);
    const decomposed = heldOutOf(unlike(paths.map((path) => path.normalize("NFD"))), 0.1);
    expect(new Set([...decomposed].map((path) => path.normalize("NFC")))).toEqual(held);
    const more = heldOutOf(unlike([...paths, "new.jpg"]), 0.1);
    expect([...held].filter((path) => !more.has(path)).length).toBeLessThanOrEqual(1);
  });
});
