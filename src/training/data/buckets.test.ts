import { describe, expect, it } from "vitest";
import { ConfigError } from "../../errors.js";
import { bucketShapes, bucketsOf, shapeChooser } from "./buckets.js";

const size = (width: number, height: number) => ({ width, height });
const text = ({ width, height }: { width: number; height: number }) => `${width}×${height}`;

describe("bucketShapes", () => {
  it("makes the shapes of kohya's scripts at 512", () => {
    expect(bucketShapes(512, 256, 1024, 64).map(text)).toEqual([
      ...["256×832", "256×896", "256×960", "256×1024", "320×704", "320×768", "384×640", "448×576"],
      ...["512×512", "576×448", "640×384", "704×320", "768×320", "832×256", "896×256", "960×256", "1024×256"],
    ]);
  });

  it("makes no shape of more pixels than the square, nor of other steps", () => {
    for (const [resolution, step] of [
      [768, 64],
      [1024, 64],
      [1000, 8],
      [96, 32],
    ] as const) {
      for (const { width, height } of bucketShapes(resolution, step * 4, 2 * resolution, step)) {
        expect(width * height).toBeLessThanOrEqual(resolution ** 2);
        expect([width % step, height % step]).toEqual([0, 0]);
      }
    }
  });
});

describe("shapeChooser", () => {
  it("gives each image the shape nearest in proportion, a transposed image the transposed one", () => {
    const shapeOf = shapeChooser(512, { bucket: true });
    for (const [own, expected] of [
      [size(4000, 3000), "576×448"],
      [size(3000, 4000), "448×576"],
      [size(1920, 1080), "640×384"],
      [size(64, 64), "512×512"],
      [size(5000, 100), "1024×256"],
      [size(320, 704), "320×704"],
    ] as const) {
      expect(text(shapeOf(own)), text(own)).toBe(expected);
      expect(shapeOf(size(own.height, own.width))).toEqual(size(shapeOf(own).height, shapeOf(own).width));
    }
    expect(shapeChooser(512, {})(size(4000, 3000))).toEqual(size(512, 512));
  });

  it("scales nothing up where that is not wanted, but to one step", () => {
    const shapeOf = shapeChooser(512, { bucket: true, bucketNoUpscale: true });
    for (const [own, expected] of [
      [size(300, 200), "256×192"],
      [size(512, 512), "512×512"],
      [size(1024, 1024), "512×512"],
      [size(4000, 3000), "576×384"],
      [size(40, 300), "64×256"],
      [size(9000, 300), "1024×256"],
    ] as const) {
      expect(text(shapeOf(own)), text(own)).toBe(expected);
    }
  });

  it("refuses limits that contradict each other, and limits without buckets", () => {
    expect(() => shapeChooser(512, { bucketStep: 32 })).toThrow(/bucketStep says how buckets are made; give bucket/);
    expect(() => shapeChooser(512, { bucketNoUpscale: true })).toThrow(ConfigError);
    expect(() => shapeChooser(32, { bucket: true })).toThrow(/at least bucketStep; got 32 and 64/);
    expect(() => shapeChooser(512, { bucket: true, bucketMin: 600 })).toThrow(/between bucketMin and bucketMax/);
    expect(() => shapeChooser(512, { bucket: true, bucketMax: 500 })).toThrow(/between bucketMin and bucketMax/);
  });
});

describe("bucketsOf", () => {
  it("gathers images by shape, narrow before wide", () => {
    const shapes = [size(64, 32), size(32, 64), size(64, 32), size(32, 32)];
    expect(bucketsOf({ size: 4, shape: (i) => shapes[i]! })).toEqual([
      { width: 32, height: 32, indices: [3] },
      { width: 32, height: 64, indices: [1] },
      { width: 64, height: 32, indices: [0, 2] },
    ]);
  });
});
