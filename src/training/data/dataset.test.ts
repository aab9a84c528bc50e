import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { plainPng, writeFolder } from "../../../test/support/data-folder.js";
import { ConfigError, ShapeError } from "../../errors.js";
import { type ImageDataset, openDataset } from "./dataset.js";
import { baseNameOf, isHeldOut, loadIconSet } from "./icons.js";

let root: string;
beforeAll(async () => {
  root = await mkdtemp(path.join(tmpdir(), "fera-dataset-"));
});
afterAll(() => rm(root, { recursive: true, force: true }));

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

  it("opens the icons of a list that the style draws, in its order", async () => {
    const options = { size: 8, cache: path.join(root, "cache"), split: "all", validationSplit: 0.5 } as const;
    const icons = await openDataset("icons:openmoji", { ...options, names: ["rocket", "no such thing", "banana"] });
    expect([icons.size, icons.name(0), icons.name(1)]).toEqual([2, "rocket", "banana"]);
    await expect(openDataset(root, { size: 8, names: ["rocket"] })).rejects.toThrow(/names chooses among icons/);
  });

  it("holds out the share asked for, the same images every time, and none twice", async () => {
    const names = Array.from({ length: 7 }, (_, i) => `image ${i}.png`);
    const files = await Promise.all(names.map(async (name, i) => [name, await plainPng(i)] as const));
    const dir = await writeFolder(root, Object.fromEntries(files));
    const open = (split: "train" | "heldOut" | "all", validationSplit?: number) =>
      openDataset(dir, { size: 8, split, validationSplit });
    const [train, held, all] = [await open("train", 0.3), await open("heldOut", 0.3), await open("all", 0.3)];
    const namesOf = (set: ImageDataset) => Array.from({ length: set.size }, (_, i) => set.name(i));
    expect([train.size, held.size, all.size]).toEqual([5, 2, 7]);
    expect([train, held, all].map(({ heldOut }) => heldOut)).toEqual([2, 2, 2]);
    expect(train.heldOutCopies).toBe(0);
    expect([...namesOf(train), ...namesOf(held)].sort()).toEqual(names);
    expect(namesOf(all)).toEqual(names);
    expect(namesOf(await open("heldOut", 0.3))).toEqual(namesOf(held));
    expect(await train.image(0)).toHaveLength(3 * 64);
    expect(all.contentHash(1)).not.toBe(all.contentHash(0));
    expect(() => train.caption(train.size)).toThrow(ShapeError);
    await expect(train.image(-1)).rejects.toThrow(ShapeError);
  });

  it("trains on all of a small folder, on all of any where nothing is to be held out", async () => {
    const png = await plainPng();
    const dir = await writeFolder(root, { "1/01.png": png, "2/01.png": png });
    for (const validationSplit of [undefined, 0, 0.4]) {
      const train = await openDataset(dir, { size: 8, validationSplit });
      expect([train.size, train.heldOut]).toEqual([2, 0]);
    }
    const half = await openDataset(dir, { size: 8, validationSplit: 0.5 });
    expect([half.size, half.heldOut, half.heldOutCopies]).toEqual([1, 1, 1]);
    const none = openDataset(dir, { size: 8, split: "heldOut" });
    await expect(none).rejects.toThrow(/none of the 2 images of .* a share of 0\.05 is less than one/);
    const off = openDataset(dir, { size: 8, split: "heldOut", validationSplit: 0 });
    await expect(off).rejects.toThrow(/validationSplit is 0/);
    for (const validationSplit of [1, -0.1, Number.NaN, "0.1" as unknown as number]) {
      await expect(openDataset(dir, { size: 8, validationSplit })).rejects.toThrow(/from 0 to below 1/);
    }
  });

  it("holds out icons by the share asked for, a smaller one among a larger", async () => {
    const cache = path.join(root, "cache");
    const open = (validationSplit: number, split: "heldOut" | "train" = "heldOut") =>
      openDataset("icons:fluent-emoji-high-contrast", { size: 4, cache, split, validationSplit });
    const [few, many, none] = [await open(0.02), await open(0.1), await open(0, "train")];
    const names = new Set(Array.from({ length: many.size }, (_, i) => many.name(i)));
    for (let i = 0; i < few.size; i++) expect(names).toContain(few.name(i));
    expect(many.size / none.size).toBeGreaterThan(0.07);
    expect(many.size / none.size).toBeLessThan(0.13);
    expect(none.heldOut).toBe(0);
    expect(few.contentHash(0)).toMatch(/^[0-9a-f]{64}$/);
    expect(few.captionSource(0)).toBe("iconName");
    const withPrompt = openDataset("icons:noto", { size: 4, cache, instancePrompt: "an icon" });
    await expect(withPrompt).rejects.toThrow(/every icon has a name/);
  });

  it("refuses unknown styles and splits", async () => {
    await expect(openDataset("icons:emojione", { size: 8 })).rejects.toThrow(/unknown style "emojione"/);
    await expect(openDataset("icons:noto", { size: 8, split: "test" as "train" })).rejects.toThrow(ConfigError);
  });

  it("keeps paths on disk unchanged", async () => {
    const bytes = await plainPng();
    const dir = await writeFolder(root, { "a.png": bytes, "b.png": bytes });
    await openDataset(dir, { size: 8 });
    expect(await readFile(path.join(dir, "a.png"))).toEqual(bytes);
  });
});

/** A PNG of one colour and size. */
const png = (background: string, width = 8, height = 8) =>
  sharp({ create: { width, height, channels: 3, background } })
    .png()
    .toBuffer();

const listed = (set: ImageDataset) =>
  Object.fromEntries(Array.from({ length: set.size }, (_, i) => [set.name(i), [set.caption(i), set.repeats(i)]]));

describe("openDataset under the conventions of other trainers", () => {
  it("reads kohya's folders with repeats, regularization and masks as kohya's scripts do", async () => {
    const image = await png("red");
    const dir = await writeFolder(root, {
      "10_sks dog/a.png": image,
      "10_sks dog/b.png": await png("lime"),
      "10_sks dog/b.caption": "b's own",
      "reg/1_dog/r1.png": await png("blue"),
      "reg/1_dog/r2.png": await png("navy"),
      "mask/a.png": await png("white"),
    });
    const plain = await openDataset(dir, { size: 8, mask: true, regularizationWeight: 0.5, repeats: 2 });
    expect(listed(plain)).toEqual({
      "10_sks dog/a.png": ["sks dog", 20],
      "10_sks dog/b.png": ["b's own", 20],
      "reg/1_dog/r1.png": ["dog", 20],
      "reg/1_dog/r2.png": ["dog", 20],
    });
    expect(Array.from({ length: 4 }, (_, i) => [plain.isRegularization(i), plain.lossWeight(i)])).toEqual([
      [false, 1],
      [false, 1],
      [true, 0.5],
      [true, 0.5],
    ]);
    expect(plain.hasMasks).toBe(true);
    expect(await plain.mask(0)).toEqual(new Float32Array(64).fill(1));
    expect(await plain.mask(1)).toBeUndefined();
    const without = await openDataset(dir, { size: 8 });
    expect(without.hasMasks).toBe(false);
    expect(without.skipped).toEqual([
      { path: "mask/a.png", reason: expect.stringMatching(/where they are asked for/) },
    ]);
    expect(without.contentHash(0)).not.toBe(plain.contentHash(0));
    expect(without.pixelKey(0)).not.toBe(plain.pixelKey(0));
    const prompted = await openDataset(dir, { size: 8, instancePrompt: "photo", regularizationPrompt: "a dog" });
    expect(Object.values(listed(prompted)).map(([caption]) => caption)).toEqual(["photo", "b's own", "a dog", "a dog"]);
  });

  it("takes several folders with repeats, regularization data beside them, and holds none of the latter out", async () => {
    const one = await writeFolder(root, { "x/a.png": await png("red"), "x/b.png": await png("lime") });
    const two = await writeFolder(root, { "x/a.png": await png("blue") });
    const classes = await writeFolder(root, { "c.png": await png("gray"), "d.png": await png("black") });
    const [first, second] = [path.join(one, "x"), path.join(two, "x")];
    const options = { size: 8, captionPrefix: "pre", captionSuffix: "post" };
    const set = await openDataset([first, `${second}=3`], options);
    expect(listed(set)).toEqual({
      "x/a.png": ["pre a post", 1],
      "x/b.png": ["pre b post", 1],
      "x 2/a.png": ["pre a post", 3],
    });
    const regularized = { ...options, regularizationData: classes, validationSplit: 0.5 };
    const train = await openDataset([first, `${second}=3`], regularized);
    const held = await openDataset([first, `${second}=3`], { ...regularized, split: "heldOut" });
    expect([train.heldOut, held.size]).toEqual([1, 1]);
    expect(held.isRegularization(0)).toBe(false);
    const regularization = Array.from({ length: train.size }, (_, i) => i).filter((i) => train.isRegularization(i));
    expect(regularization.length).toBeGreaterThan(0);
    for (const i of regularization) expect(train.caption(i)).toMatch(/^[cd]$/);
    const epoch = (isRegularization: boolean) =>
      Array.from({ length: train.size }, (_, i) => i)
        .filter((i) => train.isRegularization(i) === isRegularization)
        .reduce((sum, i) => sum + train.repeats(i), 0);
    expect(epoch(true)).toBe(epoch(false));
    await expect(openDataset(`${first}=0`, { size: 8 })).rejects.toThrow(/repeats must be a whole number from 1/);
    await expect(openDataset([first, "icons:noto"], { size: 8 })).rejects.toThrow(/is data by itself/);
  });

  it("leaves out regularization images that are not needed, and says so", async () => {
    const dir = await writeFolder(root, {
      "a.png": await png("red"),
      "reg/b.png": await png("blue"),
      "reg/c.png": await png("navy"),
    });
    const set = await openDataset(dir, { size: 8 });
    expect(Object.keys(listed(set))).toEqual(["a.png", "reg/b.png"]);
    expect(set.skipped).toEqual([{ path: "reg/c.png", reason: expect.stringMatching(/more regularization images/) }]);
    const only = await writeFolder(root, { "reg/a.png": await png("red") });
    await expect(openDataset(only, { size: 8 })).rejects.toThrow(/are regularization images/);
  });

  it("leaves out what kohya's GUI writes beside its images", async () => {
    const image = await png("red");
    const dir = await writeFolder(root, {
      "img/2_cat/a.png": image,
      "model/sample/s.png": image,
      "log/x/y.png": image,
    });
    const set = await openDataset(dir, { size: 8 });
    expect(listed(set)).toEqual({ "img/2_cat/a.png": ["cat", 2] });
    expect(set.skipped.map(({ path }) => path)).toEqual(["log", "model"]);
  });

  it("refuses masks that do not fit their image, all by name", async () => {
    const dir = await writeFolder(root, {
      "a.png": await png("red", 16, 8),
      "a.mask.png": await png("white", 8, 8),
      "b.png": await png("red", 16, 8),
      "b.mask.png": "no image",
    });
    const opened = openDataset(dir, { size: 8, mask: true });
    await expect(opened).rejects.toThrow(/2 masks cannot be used/);
    await expect(opened).rejects.toThrow(/a\.mask\.png has 8×8 pixels, and its image 16×8/);
    expect((await openDataset(dir, { size: 8 })).size).toBe(2);
  });

  it("weighs by an image's alpha where there is no mask file, and not where it is opaque", async () => {
    const clear = { r: 0, g: 0, b: 0, alpha: 0 };
    const seeThrough = await sharp({ create: { width: 8, height: 8, channels: 4, background: clear } })
      .png()
      .toBuffer();
    const dir = await writeFolder(root, { "a.png": seeThrough, "b.png": await png("red") });
    const set = await openDataset(dir, { size: 8, mask: true, background: "black" });
    expect(await set.mask(0)).toEqual(new Float32Array(64));
    expect(await set.mask(1)).toBeUndefined();
    expect((await set.image(0)).every((value) => value === -1)).toBe(true);
    const [white, black] = [
      await openDataset(dir, { size: 8 }),
      await openDataset(dir, { size: 8, background: "black" }),
    ];
    expect(white.pixelKey(0)).not.toBe(black.pixelKey(0));
    expect(white.pixelKey(1)).toBe(black.pixelKey(1));
    await expect(openDataset(dir, { size: 8, background: "no colour" })).rejects.toThrow(/must be a colour/);
  });

  it("gives each image the shape of its bucket, and tells its placement", async () => {
    const dir = await writeFolder(root, {
      "tall.png": await png("red", 100, 200),
      "wide.png": await png("lime", 640, 320),
    });
    const set = await openDataset(dir, { size: 128, bucket: true });
    expect([set.shape(0), set.shape(1)]).toEqual([
      { width: 64, height: 192 },
      { width: 192, height: 64 },
    ]);
    expect(await set.image(0)).toHaveLength(3 * 64 * 192);
    // 100×200 covers 64×192 at 96×192.
    expect(await set.placement(0)).toEqual({ originalSize: [200, 100], cropTopLeft: [0, 16] });
    expect(await set.placement(0, { crop: { x: 1, y: 0 } })).toEqual({
      originalSize: [200, 100],
      cropTopLeft: [0, 32],
    });
    expect(set.pixelKey(0)).not.toBe((await openDataset(dir, { size: 128 })).pixelKey(0));
  });
});
