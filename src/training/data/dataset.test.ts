import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
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
