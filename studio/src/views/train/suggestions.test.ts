import { describe, expect, it } from "vitest";
import { dataSetImage } from "../../../../test/support/data-set-image.js";
import { type Circumstances, suggest } from "./suggestions.js";

const images = Array.from({ length: 12 }, (_, i) => dataSetImage(`${i}.png`, `caption ${i}`));
const usual: Circumstances = {
  images,
  defaultSize: 64,
  machine: { cores: 2, memoryBytes: 24e9 },
  kind: "server",
  own: {},
};
const given = (changes: Partial<Circumstances>) => {
  const found = suggest({ ...usual, ...changes });
  return Object.fromEntries(found.map(({ option, value }) => [option, value]));
};
const reasonOf = (option: string, changes: Partial<Circumstances> = {}) =>
  suggest({ ...usual, ...changes }).find((found) => found.option === option)?.reason;

describe("suggest", () => {
  it("shows each image about a hundred times, whatever the batch", () => {
    expect(given({})).toMatchObject({ batchSize: 4, steps: 300 });
    expect(given({ own: { batchSize: 1 } })).toMatchObject({ steps: 1200 });
    expect(given({ own: { batchSize: 2, gradientAccumulation: 3 } })).toMatchObject({ steps: 200 });
    expect(reasonOf("steps")).toBe("Each of 12 images is seen about 100 times.");
  });

  it("counts repeats, and keeps within bounds", () => {
    const repeated = images.map((image) => ({ ...image, repeats: 10 }));
    expect(given({ images: repeated })).toMatchObject({ steps: 3000 });
    expect(reasonOf("steps", { images: images.slice(0, 1) })).toBe("Each of 1 image is seen about 200 times.");
  });

  it("takes a batch that fits into the memory", () => {
    const at = (defaultSize: number | undefined, memoryBytes?: number) =>
      given({ defaultSize, machine: { cores: 2, memoryBytes } });
    expect(at(512, 8e9)).toMatchObject({ batchSize: 1, gradientCheckpointing: true });
    expect(at(512, 12e9)).toMatchObject({ batchSize: 2 });
    expect(at(512, 64e9)).toMatchObject({ batchSize: 4 });
    expect(at(512, 64e9)).not.toHaveProperty("gradientCheckpointing");
    expect(at(1024, 24e9)).toMatchObject({ batchSize: 1, gradientCheckpointing: true });
    expect(at(undefined, 64e9)).toMatchObject({ batchSize: 1 });
    expect(at(512)).toMatchObject({ batchSize: 1 });
  });

  it("follows the resolution that was set", () => {
    expect(given({ own: { resolution: 1024 } })).toMatchObject({ batchSize: 1 });
  });

  it("takes no larger batch than there are images, nor many steps in a tab", () => {
    expect(given({ images: images.slice(0, 2) })).toMatchObject({ batchSize: 2 });
    expect(given({ kind: "tab" }).steps).toBe(90);
    expect(given({ kind: "tab" }).validationPrompts).toEqual(["caption 0"]);
  });

  it("draws two captions along the way, never a file name", () => {
    expect(given({}).validationPrompts).toEqual(["caption 0", "caption 6"]);
    const bare = images.map(({ name }) => dataSetImage(name, name, "uncaptioned"));
    expect(given({ images: bare })).not.toHaveProperty("validationPrompts");
    expect(reasonOf("instancePrompt", { images: bare })).toContain("None of the images");
    expect(reasonOf("instancePrompt", { images: [...images, ...bare.slice(0, 3)] })).toContain("3 of 15 images");
    expect(reasonOf("instancePrompt")).toBeUndefined();
  });

  it("wants buckets where squares would lose much", () => {
    const wide = images.map((image, i) =>
      i < 3 ? { ...image, crop: { left: 0.25, top: 0, width: 0.5, height: 1 } } : image,
    );
    expect(given({ images: wide })).toMatchObject({ bucket: true });
    expect(given({})).not.toHaveProperty("bucket");
  });

  it("says only what the model alone tells without images", () => {
    expect(suggest({ ...usual, images: [] }).map(({ option }) => option)).toEqual(["learningRate", "resolution"]);
  });

  it("takes a higher learning rate for a small model, with the optimizer that it is for", () => {
    const rate = (changes: Partial<Circumstances>) =>
      suggest({ ...usual, ...changes }).find(({ option }) => option === "learningRate")?.value;
    expect(rate({ defaultSize: 128 })).toBe(0.0015);
    expect(rate({ defaultSize: 512 })).toBeUndefined();
    expect(rate({ defaultSize: 128, own: { optimizer: "prodigy" } })).toBeUndefined();
  });
});
