import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import sharp, { type Sharp } from "sharp";
import { describe, expect, it } from "vitest";
import { ConfigError, FormatError } from "../../errors.js";
import { alphaPlane, checkColour, describeImage, imagePlanes, maskPlane } from "./image-pixels.js";
import type { ImageShape, ImageVariant } from "./image-variant.js";

/** Left half red, right half blue, the lower half darker, so that each corner is told from the others. */
function corners(width = 32, height = 16) {
  const rgb = Buffer.alloc(width * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const value = y < height / 2 ? 240 : 120;
      rgb[3 * (y * width + x) + (x < width / 2 ? 0 : 2)] = value;
    }
  }
  return sharp(rgb, { raw: { width, height, channels: 3 } });
}

async function planes(bytes: Uint8Array, shape: ImageShape, variant: ImageVariant & { background?: string } = {}) {
  const traits = await describeImage(bytes, "test");
  const values = await imagePlanes(bytes, "test", { background: "white", ...variant, traits, shape });
  /** RGB in 0…255 at a pixel. */
  const at = (x: number, y: number) =>
    [0, 1, 2].map((channel) => Math.round((values[(channel * shape.height + y) * shape.width + x]! + 1) * 127.5));
  return { at, values, traits };
}

/** A JPEG file without its APP2 segments, where profiles lie. */
function withoutProfile(jpeg: Buffer): Buffer {
  const parts = [jpeg.subarray(0, 2)];
  let at = 2;
  while (jpeg[at + 1] !== 0xda) {
    const end = at + 2 + jpeg.readUInt16BE(at + 2);
    if (jpeg[at + 1] !== 0xe2) parts.push(jpeg.subarray(at, end));
    at = end;
  }
  return Buffer.concat([...parts, jpeg.subarray(at)]);
}

/** Within what JPEG and profiles change. */
function expectColour(found: number[], expected: number[], tolerance = 12) {
  for (let i = 0; i < 3; i++)
    expect(Math.abs(found[i]! - expected[i]!), `${found} is ${expected}`).toBeLessThanOrEqual(tolerance);
}

describe("imagePlanes", () => {
  it.each([1, 2, 3, 4, 5, 6, 7, 8])("turns an image of EXIF orientation %i upright", async (orientation) => {
    // The picture as a camera stores it that is held so: the inverse of what the viewer has to do.
    // One step at a time: in one call sharp mirrors first, whatever the order.
    const steps: Record<number, ((image: Sharp) => Sharp)[]> = {
      1: [],
      2: [(image) => image.flop()],
      3: [(image) => image.rotate(180)],
      4: [(image) => image.flip()],
      5: [(image) => image.rotate(90), (image) => image.flop()],
      6: [(image) => image.rotate(270)],
      7: [(image) => image.rotate(270), (image) => image.flop()],
      8: [(image) => image.rotate(90)],
    };
    let stored = await corners().png().toBuffer();
    for (const step of steps[orientation]!) stored = await step(sharp(stored)).png().toBuffer();
    const bytes = await sharp(stored).withMetadata({ orientation }).png().toBuffer();
    const { at, traits } = await planes(bytes, { width: 32, height: 16 });
    expect(traits).toMatchObject({ own: { width: 32, height: 16 }, isTurned: orientation > 1 });
    expect([at(1, 1), at(30, 1), at(1, 14), at(30, 14)]).toEqual([
      ...[
        [240, 0, 0],
        [0, 0, 240],
        [120, 0, 0],
        [0, 0, 120],
      ],
    ]);
  });

  it("reads grey, palette, 16 bits, CMYK with and without a profile, and wide colour, as sRGB", async () => {
    const colour = { r: 200, g: 120, b: 40 };
    const plain = () => sharp({ create: { width: 16, height: 16, channels: 3, background: colour } });
    const rgb = [200, 120, 40];
    const grey = await sharp({ create: { width: 16, height: 16, channels: 3, background: "#808080" } })
      .toColourspace("b-w")
      .png()
      .toBuffer();
    expect((await sharp(grey).metadata()).channels).toBe(1);
    const deep = await plain().toColourspace("rgb16").png().toBuffer();
    expect((await sharp(deep).metadata()).depth).toBe("ushort");
    const deepGrey = await sharp(grey).toColourspace("grey16").png().toBuffer();
    expect((await sharp(deepGrey).metadata()).depth).toBe("ushort");
    const palette = await plain().png({ palette: true }).toBuffer();
    expect((await sharp(palette).metadata()).isPalette).toBe(true);
    const muted = { r: 150, g: 120, b: 100 };
    const printed = sharp({ create: { width: 16, height: 16, channels: 3, background: muted } }).toColourspace("cmyk");
    const cmyk = await printed.clone().withIccProfile("cmyk").jpeg({ quality: 100 }).toBuffer();
    expect(await sharp(cmyk).metadata()).toMatchObject({ space: "cmyk", hasProfile: true });
    const bare = await sharp(withoutProfile(cmyk)).metadata();
    expect(bare).toMatchObject({ space: "cmyk", hasProfile: false });
    const p3 = await plain().withIccProfile("p3").png().toBuffer();
    const size = { width: 8, height: 8 };
    expectColour((await planes(grey, size)).at(4, 4), [128, 128, 128], 1);
    expectColour((await planes(deepGrey, size)).at(4, 4), [128, 128, 128], 1);
    expectColour((await planes(deep, size)).at(4, 4), rgb, 1);
    expectColour((await planes(palette, size)).at(4, 4), rgb, 1);
    // What Little CMS makes of that file by its profile (Pillow 13's ImageCms, perceptual intent); paper has less colour.
    expectColour((await planes(cmyk, size)).at(4, 4), [141, 115, 82], 2);
    expectColour((await planes(withoutProfile(cmyk), size)).at(4, 4), [150, 120, 100], 40);
    expectColour((await planes(p3, size)).at(4, 4), rgb, 3);
    // The stored values of the wide profile are others: it is read, not left out.
    const stored = await sharp(p3).keepIccProfile().raw().toBuffer();
    expect(Math.abs(stored[0]! - 200) + Math.abs(stored[2]! - 40)).toBeGreaterThan(10);
  });

  it("puts transparent parts on the background asked for, in 8 and in 16 bits", async () => {
    const half = sharp({
      create: { width: 8, height: 8, channels: 4, background: { r: 255, g: 0, b: 0, alpha: 0.5 } },
    });
    for (const bytes of [await half.clone().png().toBuffer(), await half.toColourspace("rgb16").png().toBuffer()]) {
      const size = { width: 8, height: 8 };
      expect((await describeImage(bytes, "test")).isTransparent).toBe(true);
      expectColour((await planes(bytes, size)).at(2, 2), [255, 127, 127], 2);
      expectColour((await planes(bytes, size, { background: "#0000ff" })).at(2, 2), [128, 0, 127], 2);
    }
  });

  it("takes the first frame of an animation, and says that there are more", async () => {
    const frames = await Promise.all(
      ["red", "blue"].map((background) =>
        sharp({ create: { width: 8, height: 8, channels: 3, background } })
          .png()
          .toBuffer(),
      ),
    );
    for (const format of ["gif", "webp"] as const) {
      const bytes = await sharp(frames, { join: { animated: true } })
        .toFormat(format, { lossless: true })
        .toBuffer();
      const { at, traits } = await planes(bytes, { width: 8, height: 8 });
      expectColour(at(3, 3), [255, 0, 0], 2);
      expect([traits.isAnimated, traits.own]).toEqual([true, { width: 8, height: 8 }]);
    }
    const still = frames[0]!;
    expect((await describeImage(still, "test")).isAnimated).toBe(false);
    // acTL with two frames, where APNG has it: after the header, before the pixels.
    const chunk = Buffer.from("000000086163544c0000000200000000f38d9370", "hex");
    const apng = Buffer.concat([still.subarray(0, 33), chunk, still.subarray(33)]);
    expect((await describeImage(apng, "test")).isAnimated).toBe(true);
    expectColour((await planes(apng, { width: 8, height: 8 })).at(3, 3), [255, 0, 0], 1);
  });

  it("cuts where asked: the centre, the edges; and mirrors", async () => {
    const bytes = await corners(64, 16).png().toBuffer();
    const square = { width: 16, height: 16 };
    const centre = await planes(bytes, square);
    expect([centre.at(0, 0), centre.at(15, 0)]).toEqual([
      [240, 0, 0],
      [0, 0, 240],
    ]);
    const right = await planes(bytes, square, { crop: { x: 1, y: 0.5 } });
    expect([right.at(0, 0), right.at(15, 15)]).toEqual([
      [0, 0, 240],
      [0, 0, 120],
    ]);
    const mirrored = await planes(bytes, square, { flip: true });
    expect([mirrored.at(0, 0), mirrored.at(15, 0)]).toEqual([
      [0, 0, 240],
      [240, 0, 0],
    ]);
  });

  it("refuses what is no image by name, and a text that is no colour", async () => {
    await expect(describeImage(Buffer.from("text"), "a.png")).rejects.toThrow(FormatError);
    const cutOff = (await corners(200, 200).jpeg().toBuffer()).subarray(0, 700);
    await expect(describeImage(cutOff, "a.jpg")).rejects.toThrow(/a\.jpg: is no readable image/);
    await expect(describeImage(await plain(1001, 1), "a.png")).rejects.toThrow(
      "a.png: has 1001×1 pixels: one side is more than 1000 times the other. Cut a part out of it.",
    );
    expect((await describeImage(await plain(1, 1000), "a.png")).own).toEqual({ width: 1, height: 1000 });
    await expect(checkColour("no colour")).rejects.toThrow(ConfigError);
    await checkColour("rgb(1, 2, 3)");
  });
});

const plain = (width: number, height: number) =>
  sharp({ create: { width, height, channels: 3, background: "red" } })
    .png()
    .toBuffer();

describe("small files that unfold to much", () => {
  it("are refused by the size that they claim, drawings by what they would unfold to or read", async () => {
    const large = Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="30000" height="30000"/>');
    await expect(describeImage(large, "bomb.svg")).rejects.toThrow(
      "bomb.svg: has more pixels than are read, 268 million. Make it smaller.",
    );
    const laughs = Array.from({ length: 9 }, (_, i) => `<!ENTITY l${i + 1} "${`&l${i};`.repeat(10)}">`).join("");
    const start = `<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY l0 "lol">${laughs}<!ENTITY f SYSTEM "file:///etc/hostname">]>`;
    for (const name of ["l9", "f"]) {
      const drawing = Buffer.from(`${start}<svg xmlns="http://www.w3.org/2000/svg"><text>&${name};</text></svg>`);
      await expect(describeImage(drawing, "a.svg"), name).rejects.toThrow("a.svg: is no readable image");
    }
  });

  it("a drawing shows neither pictures of the network nor other files", async () => {
    let asked = 0;
    const server = createServer((_, answer) => {
      asked++;
      answer.end();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    const folder = await mkdtemp(join(tmpdir(), "fera-drawing-"));
    try {
      const file = join(folder, "red.png");
      await writeFile(file, await plain(8, 8));
      const addresses = [`http://127.0.0.1:${port}/a.png`, pathToFileURL(file).href, "red.png"];
      const pictures = addresses.map((href) => `<image href="${href}" width="8" height="8"/>`).join("");
      const drawing = Buffer.from(
        `<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><rect width="8" height="8" fill="blue"/>${pictures}</svg>`,
      );
      const { at } = await planes(drawing, { width: 8, height: 8 });
      expect(at(4, 4)).toEqual([0, 0, 255]);
      expect(asked).toBe(0);
    } finally {
      server.close();
      await rm(folder, { recursive: true });
    }
  });
});

describe("masks", () => {
  it("are white where the loss counts, cut and mirrored as their image, whatever their own size", async () => {
    const traits = { own: { width: 64, height: 32 }, isDrawing: false };
    // White on the right half.
    const mask = await sharp({ create: { width: 32, height: 16, channels: 3, background: "black" } })
      .composite([{ input: { create: { width: 16, height: 16, channels: 3, background: "white" } }, left: 16, top: 0 }])
      .png()
      .toBuffer();
    const shape = { width: 16, height: 16 };
    const row = async (variant: ImageVariant) =>
      Array.from((await maskPlane(mask, "mask", { ...variant, traits, shape })).subarray(0, 16));
    const centre = await row({});
    expect([centre[0], centre[4], centre[11], centre[15]]).toEqual([0, 0, 1, 1]);
    expect(await row({ crop: { x: 1, y: 0 } })).toEqual(Array(16).fill(1));
    expect((await row({ flip: true }))[0]).toBe(1);
  });

  it("are the opacity of an image, in 8 and in 16 bits, and 1 where it has none", async () => {
    const traits = { own: { width: 8, height: 8 }, isDrawing: false };
    const shape = { width: 8, height: 8 };
    const half = sharp({ create: { width: 8, height: 8, channels: 4, background: { r: 9, g: 9, b: 9, alpha: 0.25 } } });
    for (const bytes of [await half.clone().png().toBuffer(), await half.toColourspace("rgb16").png().toBuffer()]) {
      const plane = await alphaPlane(bytes, "test", { traits, shape });
      expect(plane).toHaveLength(64);
      for (const value of plane) expect(value).toBeCloseTo(0.25, 1);
    }
    const opaque = await sharp({ create: { width: 8, height: 8, channels: 3, background: "red" } })
      .png()
      .toBuffer();
    expect(await alphaPlane(opaque, "test", { traits, shape })).toEqual(new Float32Array(64).fill(1));
  });
});
