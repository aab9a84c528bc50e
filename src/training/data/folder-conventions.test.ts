import { describe, expect, it } from "vitest";
import { meaningOfFolders, sortMasks } from "./folder-conventions.js";

describe("meaningOfFolders", () => {
  it("reads kohya's folders: repeats, words, regularization; the nearest folder counts", () => {
    expect(meaningOfFolders("10_sks dog/a.png")).toEqual({ repeats: 10, words: "sks dog", isRegularization: false });
    expect(meaningOfFolders("img/3_a_b/deep/a.png")).toEqual({ repeats: 3, words: "a_b", isRegularization: false });
    expect(meaningOfFolders("5_dog/2_puppy/a.png").repeats).toBe(2);
    expect(meaningOfFolders("reg/1_dog/a.png")).toEqual({ repeats: 1, words: "dog", isRegularization: true });
    expect(meaningOfFolders("a.png")).toEqual({ repeats: 1, isRegularization: false });
  });

  it("takes no year, no zero and no name of a file for repeats", () => {
    for (const path of ["2024_holiday/a.png", "0_dog/a.png", "10_dog.png", "10/a.png", "10_/a.png", "regal/a.png"]) {
      expect(meaningOfFolders(path), path).toEqual({ repeats: 1, isRegularization: false });
    }
  });
});

describe("sortMasks", () => {
  it("tells masks beside their images and in folders from images", () => {
    const { images, masks, unused } = sortMasks([
      "a.jpg",
      "a.mask.png",
      "b.png",
      "b-masklabel.png",
      "10_dog/c.png",
      "mask/c.png",
      "sub/d.webp",
      "sub/masks/d.png",
      "10_dog/e.png",
      "mask/10_dog/e.png",
    ]);
    expect(images).toEqual(["a.jpg", "b.png", "10_dog/c.png", "sub/d.webp", "10_dog/e.png"]);
    expect(Object.fromEntries(masks)).toEqual({
      "a.jpg": "a.mask.png",
      "b.png": "b-masklabel.png",
      "10_dog/c.png": "mask/c.png",
      "sub/d.webp": "sub/masks/d.png",
      "10_dog/e.png": "mask/10_dog/e.png",
    });
    expect(unused).toEqual([]);
  });

  it("trains on no mask, even one without an image, and says so", () => {
    const { images, masks, unused } = sortMasks([
      ...["a.png", "a.mask.png", "mask/a.png", "b.mask.png", "x/c.png", "y/c.png", "mask/c.png", "a-condlabel.png"],
    ]);
    expect(images).toEqual(["a.png", "x/c.png", "y/c.png"]);
    expect([...masks.keys()]).toEqual(["a.png"]);
    expect(unused.map(({ path }) => path).sort()).toEqual([
      ...["a-condlabel.png", "b.mask.png", "mask/a.png", "mask/c.png"],
    ]);
  });
});
