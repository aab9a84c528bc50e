import { describe, expect, it } from "vitest";
import { dataSetImage as image } from "../../../../test/support/data-set-image.js";
import { countWarnings, filterImages } from "./image-filter.js";

const images = [
  image("cat/1.png", "a Cat on a mat"),
  image("2.png", "a dog", "tiny", "cut"),
  image("3.png", "", "emptyCaption"),
];
const names = (...given: Parameters<typeof filterImages>) => filterImages(...given).map(({ name }) => name);

describe("filterImages", () => {
  it("finds every word in name or caption, in any case", () => {
    expect(names(images, { text: "CAT mat", warning: "all" })).toEqual(["cat/1.png"]);
    expect(names(images, { text: "png dog", warning: "all" })).toEqual(["2.png"]);
    expect(names(images, { text: "cat dog", warning: "all" })).toEqual([]);
  });

  it("finds images with any warning, or with one kind", () => {
    expect(names(images, { text: "", warning: "any" })).toEqual(["2.png", "3.png"]);
    expect(names(images, { text: "", warning: "cut" })).toEqual(["2.png"]);
  });

  it("keeps in its place what was mended while it was shown", () => {
    expect(names(images, { text: "", warning: "emptyCaption" }, new Set(["2.png"]))).toEqual(["2.png", "3.png"]);
  });
});

describe("countWarnings", () => {
  it("counts images, not sentences, the most frequent kind first", () => {
    const more = [...images, image("4.png", "", "emptyCaption", "emptyCaption")];
    expect(countWarnings(more)).toEqual([
      ["emptyCaption", 2],
      ["tiny", 1],
      ["cut", 1],
    ]);
  });
});
