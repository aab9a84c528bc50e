import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { relativeError } from "../../test/support/relative-error.js";
import { ConfigError, RuntimeError, ShapeError } from "../errors.js";
import { Generator, rand } from "../tensor/random.js";
import { Tensor, tensor, zeros } from "../tensor/tensor.js";
import { readImage } from "./image-file.js";
import { ImageTensor } from "./image-tensor.js";

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), "fera-image-"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

/** A smooth 12×8 picture, which lossy formats hardly change. */
const picture = ImageTensor.fromTensor(
  tensor(
    Float32Array.from({ length: 3 * 8 * 12 }, (_, i) => Math.sin((i % 12) / 6 + Math.floor(i / 96))),
    [1, 3, 8, 12],
  ),
);

describe("an image", () => {
  it("is the tensor that it was made from, with a size", () => {
    const values = rand([3, 4, 6], { generator: new Generator(1) });
    const image = ImageTensor.fromTensor(values);
    expect(image).toBeInstanceOf(Tensor);
    expect(image.data).toBe(values.data);
    expect(image).toMatchObject({ shape: [3, 4, 6], width: 6, height: 4, channels: 3, dtype: "float32" });
    expect(ImageTensor.fromTensor(image)).toBe(image);
    expect(image.reshape([1, 3, 4, 6])).not.toBeInstanceOf(ImageTensor);
    const copy = image.toTensor();
    expect(copy).toEqual(values);
    expect(copy.data).not.toBe(values.data);
  });

  it("gives and takes 8-bit pixels", () => {
    const { data, ...rest } = ImageTensor.fromTensor(tensor([-1, 1, 0, 1, -1, 0.5], [3, 1, 2])).toRgb();
    expect(rest).toEqual({ width: 2, height: 1, channels: 3 });
    expect([...data]).toEqual([0, 128, 0, 255, 255, 191]);
    expect(ImageTensor.fromPixels({ width: 2, height: 1, data }).toRgb().data).toEqual(data);
  });

  it("draws transparent pixels on white", () => {
    const data = Uint8ClampedArray.of(0, 0, 0, 0, 255, 0, 0, 255, 0, 0, 0, 51);
    const image = ImageTensor.fromPixels({ width: 3, height: 1, data });
    expect([...image.toRgb().data]).toEqual([255, 255, 255, 255, 0, 0, 204, 204, 204]);
  });

  it("refuses what is no image", () => {
    expect(() => ImageTensor.fromTensor(zeros([4, 8, 8]))).toThrow(/must be float32 \[3,H,W\].*got float32 \[4,8,8\]/);
    expect(() => ImageTensor.fromTensor(zeros([2, 3, 8, 8]))).toThrow(ShapeError);
    expect(() => ImageTensor.fromTensor(zeros([3, 8, 8], "int32"))).toThrow(/got int32 \[3,8,8\]/);
    expect(() => ImageTensor.fromTensor(zeros([3, 0, 8]))).toThrow(ShapeError);
    expect(() => ImageTensor.fromPixels({ width: 2, height: 2, data: new Uint8Array(11) })).toThrow(
      /2×2 needs 12 bytes of RGB or 16 of RGBA; got 11/,
    );
  });
});

describe("in Node", () => {
  it.each([
    ["png", 0.005],
    ["jpg", 0.1],
    ["webp", 0.005],
  ])("saves as %s, which can be read again", async (ending, tolerance) => {
    const file = path.join(dir, "new folder", `picture.${ending}`);
    await picture.save(file);
    expect((await sharp(file).metadata()).format).toBe(ending === "jpg" ? "jpeg" : ending);
    const read = await readImage(file);
    expect(read).toBeInstanceOf(ImageTensor);
    expect(read.shape).toEqual([3, 8, 12]);
    expect(relativeError(read.data, picture.data)).toBeLessThan(tolerance);
  });

  it("makes smaller files of lower quality", async () => {
    const [good, poor] = [path.join(dir, "good.jpg"), path.join(dir, "poor.jpg")];
    const noise = ImageTensor.fromTensor(rand([3, 32, 32], { generator: new Generator(2) }));
    await noise.save(good);
    await noise.save(poor, { quality: 0.1 });
    expect((await readFile(poor)).length).toBeLessThan(0.6 * (await readFile(good)).length);
    await expect(noise.save(good, { quality: 90 })).rejects.toThrow(/quality must be between 0 and 1; got 90/);
  });

  it("gives a blob of the type asked for, and a sharp object", async () => {
    const blob = await picture.toBlob("image/webp");
    expect(blob.type).toBe("image/webp");
    const { format, width, height } = await sharp(await blob.arrayBuffer()).metadata();
    expect({ format, width, height }).toEqual({ format: "webp", width: 12, height: 8 });
    expect((await picture.toBlob()).type).toBe("image/png");
    const { data, info } = await (await picture.toSharp()).resize(6, 4).raw().toBuffer({ resolveWithObject: true });
    expect([info.width, info.height, data.length]).toEqual([6, 4, 72]);
  });

  it("says what it cannot do, and what to do instead", async () => {
    await expect(picture.save(path.join(dir, "picture.gif"))).rejects.toThrow(ConfigError);
    await expect(picture.save(path.join(dir, "picture"))).rejects.toThrow(
      /must end in \.png, \.jpg, \.jpeg, \.webp; got/,
    );
    expect(() => picture.toCanvas()).toThrow(RuntimeError);
    expect(() => picture.toCanvas()).toThrow(/use save\(\), toBlob\(\) or toSharp\(\)/);
  });
});

it("loads sharp only when an image is read or written", () => {
  const script = `
    const isLoaded = () => process.report.getReport().sharedObjects.some((file) => /libvips/.test(file));
    const { encodePng, zeros } = await import("./src/index.ts");
    const before = isLoaded();
    await encodePng(zeros([3, 2, 2]));
    console.log(before, isLoaded());
  `;
  const args = ["--import", "tsx", "--input-type=module", "--eval", script];
  expect(execFileSync(process.execPath, args, { encoding: "utf8" }).trim()).toBe("false true");
}, 60_000);
