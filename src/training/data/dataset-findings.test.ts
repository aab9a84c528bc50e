import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeFolder } from "../../../test/support/data-folder.js";
import { renderContactSheet } from "./contact-sheet.js";
import { openDataset } from "./dataset.js";
import { findIn, lossOf, upscalingOf } from "./dataset-findings.js";

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-findings-"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const plain = (background: string, width: number, height: number) =>
  sharp({ create: { width, height, channels: 3, background } });

describe("findIn", () => {
  it("finds copies whatever their masks, small, cut, turned, transparent and captionless images", async () => {
    const red = await plain("red", 64, 64).png().toBuffer();
    const clear = sharp({ create: { width: 64, height: 64, channels: 4, background: "#00ff0080" } });
    const folder = await writeFolder(dir, {
      "a.png": red,
      "a.mask.png": await plain("white", 64, 64).png().toBuffer(),
      "a.txt": "red",
      "b.png": red,
      "b.txt": "",
      "c-small.png": await plain("blue", 16, 32).png().toBuffer(),
      "d-wide.png": await plain("blue", 640, 64).png().toBuffer(),
      "e-turned.jpg": await plain("blue", 65, 64).withMetadata({ orientation: 6 }).jpeg().toBuffer(),
      "f-clear.png": await clear.png().toBuffer(),
    });
    const set = await openDataset(folder, { size: 64, mask: true });
    expect(findIn(set)).toEqual({
      duplicates: [[0, 1]],
      upscaled: [2],
      cut: [2, 3],
      turned: [4],
      animated: [],
      transparent: [5],
      uncaptioned: [2, 3, 4, 5],
      emptyCaptions: [1],
    });
    expect(upscalingOf(set, 2)).toBe(4);
    expect(lossOf(set, 3)).toBeCloseTo(0.9, 5);
  });
});

describe("renderContactSheet", () => {
  it("shows each image as it is trained on, dark where its mask is black, in rows", async () => {
    const half = await plain("white", 64, 64)
      .composite([{ input: { create: { width: 32, height: 64, channels: 3, background: "black" } }, left: 0, top: 0 }])
      .png()
      .toBuffer();
    const folder = await writeFolder(dir, {
      "a.png": await plain("#ff0000", 64, 64).png().toBuffer(),
      "a.mask.png": half,
      "b.png": await plain("#00ff00", 64, 64).png().toBuffer(),
      "c.png": await plain("#0000ff", 64, 128).png().toBuffer(),
    });
    const set = await openDataset(folder, { size: 64, bucket: true, bucketStep: 32, mask: true });
    const sheet = await renderContactSheet(set, { columns: 2 });
    expect(sheet.width).toBe(2 * 18 + 2 * 192 + 14);
    const at = (x: number, y: number) => [...sheet.data.subarray(3 * (y * sheet.width + x)).subarray(0, 3)];
    expect([at(18 + 40, 60), at(18 + 150, 60)]).toEqual([
      [51, 0, 0],
      [255, 0, 0],
    ]);
    expect(at(18 + 192 + 14 + 50, 60)).toEqual([0, 255, 0]);
    // The second row begins below the first one's texts, a tall image in the middle of its cell.
    expect(at(18 + 96, 18 + 192 + 80)).toEqual([0, 0, 255]);
    expect(at(18 + 10, 18 + 192 + 80)).toEqual([255, 255, 255]);
    expect((await renderContactSheet(set, { limit: 1 })).width).toBe(2 * 18 + 192);
  });
});
