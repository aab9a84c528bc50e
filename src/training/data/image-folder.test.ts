import { mkdir, mkdtemp, readFile, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ConfigError, FormatError, ShapeError } from "../../errors.js";
import { heldOutOf, openDataset } from "./dataset.js";
import { baseNameOf, isHeldOut, loadIconSet } from "./icons.js";
import { openImageFolder } from "./image-folder.js";

let root: string;
let made = 0;

beforeAll(async () => {
  root = await mkdtemp(path.join(tmpdir(), "fera-folder-"));
});
afterAll(() => rm(root, { recursive: true, force: true }));

/** A picture of a noto icon on green, wider than high. */
function picture(name: string) {
  return sharp(Buffer.from(loadIconSet("noto").svg(name, 64)))
    .resize(96, 64, { fit: "contain", background: "#00ff00" })
    .flatten({ background: "#00ff00" });
}

async function folder(files: Record<string, string | Uint8Array>): Promise<string> {
  const dir = path.join(root, `folder-${made++}`);
  await mkdir(dir);
  for (const [name, content] of Object.entries(files)) {
    await mkdir(path.dirname(path.join(dir, name)), { recursive: true });
    await writeFile(path.join(dir, name), content);
  }
  return dir;
}

describe("openImageFolder", () => {
  it("reads PNG, JPEG, WebP and SVG, also in subfolders, in a fixed order", async () => {
    const dir = await folder({
      "d.PNG": await picture("cat").png().toBuffer(),
      "b.jpg": await picture("dog").jpeg().toBuffer(),
      "sub/a.webp": await picture("rocket").webp().toBuffer(),
      "c.svg": loadIconSet("noto").svg("sushi"),
      "notes.md": "no image",
      "._d.png": "what macOS leaves behind",
    });
    const { images, skipped, load } = await openImageFolder(dir, { size: 32 });
    expect(images.map((image) => image.path)).toEqual(["b.jpg", "c.svg", "d.PNG", "sub/a.webp"]);
    expect(skipped).toEqual([]);
    for (let i = 0; i < images.length; i++) {
      const pixels = await load(i);
      expect(pixels).toHaveLength(3 * 32 * 32);
      for (const value of pixels) expect(Math.abs(value)).toBeLessThanOrEqual(1);
    }
    await expect(load(4)).rejects.toThrow(ShapeError);
  });

  it("crops the centre instead of squeezing", async () => {
    // Red in the middle 64 of 96 columns, green at the sides.
    const bytes = await sharp({ create: { width: 96, height: 64, channels: 3, background: "#00ff00" } })
      .composite([
        { input: { create: { width: 64, height: 64, channels: 3, background: "#ff0000" } }, left: 16, top: 0 },
      ])
      .png()
      .toBuffer();
    const { load } = await openImageFolder(await folder({ "a.png": bytes }), { size: 64 });
    const pixels = await load(0);
    expect(pixels.subarray(0, 64 * 64).every((red) => red === 1)).toBe(true);
    expect(pixels.subarray(64 * 64).every((other) => other === -1)).toBe(true);
  });

  it("puts transparent images on white", async () => {
    const bytes = await sharp({ create: { width: 8, height: 8, channels: 4, background: "#00000000" } })
      .png()
      .toBuffer();
    const { load } = await openImageFolder(await folder({ "a.png": bytes }), { size: 8 });
    expect((await load(0)).every((value) => value === 1)).toBe(true);
  });

  it("takes captions from a text file, else from metadata.jsonl, else from the file name", async () => {
    const png = await picture("cat").png().toBuffer();
    const rows = [
      { file_name: "b.png", text: "from metadata" },
      { file_name: "a.png", text: "not this" },
      { file_name: "sub/d.png", text: "by path" },
      { file_name: "gone.png", text: "lost" },
    ];
    const dir = await folder({
      "a.png": png,
      "a.txt": "\uFEFFfrom the text file \n",
      "b.png": png,
      "cat_with-wry  smile.png": png,
      "e.png": png,
      "e.txt": "",
      "sub/d.png": png,
      "metadata.jsonl": `${rows.map((row) => JSON.stringify(row)).join("\r\n")}\r\n`,
    });
    const { images, skipped } = await openImageFolder(dir, { size: 8 });
    expect(Object.fromEntries(images.map((image) => [image.path, image.caption]))).toEqual({
      "a.png": "from the text file",
      "b.png": "from metadata",
      "cat_with-wry  smile.png": "cat with wry smile",
      "e.png": "",
      "sub/d.png": "by path",
    });
    expect(skipped).toEqual([{ path: "gone.png", reason: expect.stringContaining("metadata.jsonl names it") }]);
  });

  it("skips damaged and unsupported images and says why", async () => {
    const png = await sharp({
      create: {
        width: 64,
        height: 64,
        channels: 3,
        background: "red",
        noise: { type: "gaussian", mean: 128, sigma: 40 },
      },
    })
      .png()
      .toBuffer();
    const dir = await folder({
      "good.png": png,
      "cut.png": png,
      "text.jpg": "this is no image",
      "empty.webp": "",
      "anim.gif": "GIF89a",
    });
    await truncate(path.join(dir, "cut.png"), Math.floor(png.length / 2));
    const { images, skipped } = await openImageFolder(dir, { size: 16 });
    expect(images.map((image) => image.path)).toEqual(["good.png"]);
    expect(skipped.map((one) => one.path).sort()).toEqual(["anim.gif", "cut.png", "empty.webp", "text.jpg"]);
    for (const { reason } of skipped) expect(reason).toMatch(/is no readable image|are not read/);
  });

  it("follows links to files and leaves links to folders and broken ones alone", async () => {
    const dir = await folder({ "sub/a.png": await picture("cat").png().toBuffer() });
    await symlink(path.join(dir, "sub", "a.png"), path.join(dir, "link.png"));
    await symlink(dir, path.join(dir, "sub", "circle"));
    await symlink(path.join(dir, "nowhere.png"), path.join(dir, "broken.png"));
    const { images } = await openImageFolder(dir, { size: 8 });
    expect(images.map((image) => image.path)).toEqual(["link.png", "sub/a.png"]);
  });

  it("turns photographs upright", async () => {
    const bytes = await sharp({ create: { width: 8, height: 8, channels: 3, background: "#000000" } })
      .composite([{ input: { create: { width: 8, height: 4, channels: 3, background: "#ffffff" } }, left: 0, top: 0 }])
      .withMetadata({ orientation: 3 })
      .png()
      .toBuffer();
    const { load } = await openImageFolder(await folder({ "a.png": bytes }), { size: 8 });
    const pixels = await load(0);
    expect([pixels[0], pixels[63]]).toEqual([-1, 1]);
  });

  it("refuses a folder that is missing, a file, or without a usable image", async () => {
    await expect(openImageFolder(path.join(root, "nowhere"), { size: 8 })).rejects.toThrow(/no such folder/);
    const file = path.join(await folder({ "a.txt": "x" }), "a.txt");
    await expect(openImageFolder(file, { size: 8 })).rejects.toThrow(/is a file, not a folder/);
    await expect(openImageFolder(await folder({}), { size: 8 })).rejects.toThrow(/holds no image .*there are none/);
    await expect(openImageFolder(await folder({ "a.png": "x" }), { size: 8 })).rejects.toThrow(
      /1 skipped, first a\.png/,
    );
  });

  it("refuses malformed metadata by line, and a size that is no size", async () => {
    const png = await picture("cat").png().toBuffer();
    const open = async (text: string) =>
      openImageFolder(await folder({ "a.png": png, "metadata.jsonl": text }), { size: 8 });
    await expect(open('{"file_name":"a.png","text":"x"}\n{')).rejects.toThrow(/line 2 is not valid JSON/);
    await expect(open('{"file_name":"a.png"}')).rejects.toThrow(/line 1 must have a "file_name" and a "text"/);
    await expect(open("null")).rejects.toThrow(FormatError);
    await expect(openImageFolder(root, { size: 1.5 })).rejects.toThrow(ConfigError);
  });
});

describe("openDataset", () => {
  it("splits icons by drawing, without skin tones unless asked", async () => {
    const cache = path.join(root, "cache");
    const train = await openDataset("icons:fluent-emoji-high-contrast", { size: 8, cache });
    const held = await openDataset("icons:fluent-emoji-high-contrast", { size: 8, cache, split: "heldOut" });
    expect(train.size + held.size).toBe(loadIconSet("fluent-emoji-high-contrast").names.length);
    expect(held.size).toBeGreaterThan(40);
    for (let i = 0; i < held.size; i++) expect(isHeldOut(held.name(i))).toBe(true);
    expect(held.caption(0)).toBe(held.name(0).replaceAll("-", " "));
    expect(await held.image(0)).toHaveLength(3 * 64);

    const plain = await openDataset("icons:noto", { size: 4, cache, split: "heldOut" });
    const toned = await openDataset("icons:noto", { size: 4, cache, split: "heldOut", skinTones: true });
    expect(toned.size).toBeGreaterThan(plain.size);
    const names = new Set(Array.from({ length: plain.size }, (_, i) => baseNameOf(plain.name(i))));
    for (let i = 0; i < toned.size; i++) expect(names).toContain(baseNameOf(toned.name(i)));
  });

  it("holds at least one image of a folder out, the same one every time, and none twice", async () => {
    const png = await picture("cat").png().toBuffer();
    const names = Array.from({ length: 6 }, (_, i) => `image ${i}.png`);
    const dir = await folder(Object.fromEntries(names.map((name) => [name, png])));
    const train = await openDataset(dir, { size: 8 });
    const held = await openDataset(dir, { size: 8, split: "heldOut" });
    const all = [train, held].flatMap((set) => Array.from({ length: set.size }, (_, i) => set.name(i)));
    expect(held.size).toBeGreaterThanOrEqual(1);
    expect(all.sort()).toEqual(names);
    expect(held.caption(0)).toBe(path.parse(held.name(0)).name);
    expect(await train.image(0)).toHaveLength(3 * 64);
    expect(() => train.caption(train.size)).toThrow(ShapeError);
    await expect(train.image(-1)).rejects.toThrow(ShapeError);
  });

  it("holds out about 5 % of many files", () => {
    const paths = Array.from({ length: 2000 }, (_, i) => `photos/${i}.jpg`);
    const held = heldOutOf(paths);
    expect(held.size / 2000).toBeGreaterThan(0.035);
    expect(held.size / 2000).toBeLessThan(0.065);
    const more = heldOutOf([...paths, "photos/new.jpg"]);
    for (const file of held) expect(more).toContain(file);
  });

  it("trains on a single image, and refuses to hold it out", async () => {
    const dir = await folder({ "only.png": await picture("cat").png().toBuffer() });
    expect((await openDataset(dir, { size: 8 })).size).toBe(1);
    await expect(openDataset(dir, { size: 8, split: "heldOut" })).rejects.toThrow(/at least two are needed/);
  });

  it("refuses unknown styles and splits", async () => {
    await expect(openDataset("icons:emojione", { size: 8 })).rejects.toThrow(/unknown style "emojione"/);
    await expect(openDataset("icons:noto", { size: 8, split: "test" as "train" })).rejects.toThrow(ConfigError);
  });

  it("keeps paths on disk unchanged", async () => {
    const bytes = await picture("cat").png().toBuffer();
    const dir = await folder({ "a.png": bytes, "b.png": bytes });
    await openDataset(dir, { size: 8 });
    expect(await readFile(path.join(dir, "a.png"))).toEqual(bytes);
  });
});
