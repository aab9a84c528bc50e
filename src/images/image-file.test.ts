import { mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ConfigError, FormatError, ShapeError } from "../errors.js";
import { tensor, zeros } from "../tensor/tensor.js";
import { encodePng, readImage, writeImage, writePng } from "./image-file.js";
import { planarToRgb, type RgbImage, rgbToPlanar, toRgbImage } from "./pixels.js";

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), "fera-png-"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const everyByte: RgbImage = { width: 16, height: 32, data: Uint8Array.from({ length: 1536 }, (_, i) => (i * 7) % 256) };

describe("pixels", () => {
  it("brings every byte back from planar floats", () => {
    expect(planarToRgb(rgbToPlanar(everyByte.data, 32, 16), 32, 16)).toEqual(everyByte.data);
  });

  it("clamps what is outside [-1, 1] and makes NaN black", () => {
    expect([...planarToRgb(Float32Array.from([-3, 0, Number.NaN]), 1, 1)]).toEqual([0, 128, 0]);
    expect([...planarToRgb(Float32Array.from([1.5, 1, Number.POSITIVE_INFINITY]), 1, 1)]).toEqual([255, 255, 255]);
  });

  it("refuses what is no image", () => {
    expect(() => toRgbImage(zeros([4, 8, 8]))).toThrow(/must be a float32 \[3,H,W\] tensor; got float32 \[4,8,8\]/);
    expect(() => toRgbImage(zeros([2, 3, 8, 8]))).toThrow(ShapeError);
    expect(() => toRgbImage(zeros([3, 8, 8], "int32"))).toThrow(ShapeError);
    expect(() => toRgbImage({ width: 2, height: 2, data: new Uint8Array(11) })).toThrow(ShapeError);
    expect(() => rgbToPlanar(new Uint8Array(11), 2, 2)).toThrow(ShapeError);
    expect(() => planarToRgb(new Float32Array(11), 2, 2)).toThrow(ShapeError);
  });
});

describe("writePng and readImage", () => {
  it("keep every pixel, of bytes and of tensors, and make folders on the way", async () => {
    const first = path.join(dir, "new", "folder", "bytes.png");
    await writePng(first, everyByte);
    const read = await readImage(first);
    expect(read.shape).toEqual([3, 32, 16]);
    expect(toRgbImage(read)).toEqual(everyByte);
    const second = path.join(dir, "tensor.png");
    await writePng(second, read.reshape([1, 3, 32, 16]));
    expect(await readFile(second)).toEqual(await readFile(first));
    expect([...(await encodePng(everyByte)).subarray(1, 4)]).toEqual([...Buffer.from("PNG")]);
  });

  it("crop and scale to a square", async () => {
    await writePng(path.join(dir, "wide.png"), tensor(new Float32Array(3 * 10 * 30).fill(0.5), [3, 10, 30]));
    expect((await readImage(path.join(dir, "wide.png"), { size: 20 })).shape).toEqual([3, 20, 20]);
  });

  it.each([
    ["both sides", { width: 16, height: 8 }, [8, 16]],
    ["a width, the height in proportion", { width: 12 }, [4, 12]],
    ["a height, the width in proportion, to the nearest multiple", { height: 16, multipleOf: 4 }, [16, 48]],
    ["no size, to the next smaller multiple", { multipleOf: 8 }, [8, 24]],
    ["no size, to one multiple at least", { multipleOf: 64 }, [64, 64]],
  ])("scale and crop to %s", async (_, options, [height, width]) => {
    const file = path.join(dir, "left-and-right.png");
    const data = Float32Array.from({ length: 900 }, (_, i) => (i % 30 < 15 ? -1 : 1));
    await writePng(file, tensor(data, [3, 10, 30]));
    const image = await readImage(file, options);
    expect(image.shape).toEqual([3, height, width]);
    // Both halves are still there, however much was cut off.
    const row = [...image.data.subarray(0, width)];
    expect(row[width! / 4]).toBeLessThan(-0.8);
    expect(row[(3 * width!) / 4]).toBeGreaterThan(0.8);
  });

  it("draw a small SVG sharply at a large size", async () => {
    const file = path.join(dir, "half.svg");
    await writeFile(file, `<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"><path d="M0 0h2v4H0z"/></svg>`);
    const { data } = await readImage(file, { size: 64 });
    // Half of each row is black on white, with no blurred columns between.
    expect([...data.subarray(0, 64)]).toEqual([...new Array(32).fill(-1), ...new Array(32).fill(1)]);
  });

  it("name the file that is missing, damaged or cannot be written", async () => {
    await expect(readImage(path.join(dir, "nowhere.png"))).rejects.toThrow(/nowhere\.png: .*no such file/);
    await writeFile(path.join(dir, "text.png"), "no image");
    await expect(readImage(path.join(dir, "text.png"))).rejects.toThrow(/text\.png: is no readable image/);
    await expect(readImage(path.join(dir, "text.png"), { size: 0 })).rejects.toThrow(ConfigError);
    await expect(readImage(path.join(dir, "text.png"), { width: 8.5 })).rejects.toThrow(/width must be a positive/);
    await expect(writePng(path.join(dir, "text.png", "a.png"), everyByte)).rejects.toThrow(FormatError);
  });
});

describe("writeImage", () => {
  it.each([
    [".png", 0],
    [".WEBP", 40],
    [".jpg", 40],
    [".jpeg", 40],
  ])("writes %s, at most %i off per channel", async (ending, limit) => {
    const file = path.join(dir, "formats", `image${ending}`);
    const smooth: RgbImage = {
      width: 16,
      height: 32,
      data: Uint8Array.from({ length: 1536 }, (_, i) => 4 * (Math.floor(i / 48) + (Math.floor(i / 3) % 16))),
    };
    await writeImage(file, smooth);
    const { data } = toRgbImage(await readImage(file));
    expect(Math.max(...data.map((value, i) => Math.abs(value - smooth.data[i]!)))).toBeLessThanOrEqual(limit);
  });

  it("refuses another ending by the file's name", async () => {
    await expect(writeImage(path.join(dir, "a.gif"), everyByte)).rejects.toThrow(
      /must end in \.png, \.jpg, \.jpeg, \.webp; got .*a\.gif/,
    );
    await expect(writeImage(path.join(dir, "png"), everyByte)).rejects.toThrow(ConfigError);
  });
});

describe("readImage", () => {
  it("refuses a file that is larger than any photo before it is read", async () => {
    const file = path.join(dir, "hole.png");
    await writeFile(file, "");
    await truncate(file, 2 ** 40);
    await expect(readImage(file)).rejects.toThrow(/hole\.png: has 1099511627776 bytes/);
  });
});
