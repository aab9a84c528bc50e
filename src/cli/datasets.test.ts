import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { plainPng, writeFolder } from "../../test/support/data-folder.js";
import { DATA_OPTIONS } from "../training/options/data-options.js";
import { withDefaults } from "../training/options/option.js";
import {
  absoluteData,
  captionWarnings,
  describeSkipped,
  describeTrainingData,
  evaluationArguments,
  examplePrompt,
  heldOutWarnings,
  openSplit,
  upscaleWarnings,
  validationWarnings,
} from "./datasets.js";

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "fera-cli-data-"));
});
afterAll(() => rm(root, { recursive: true }));

/** A folder of these captions; undefined for none. */
async function data(captions: Record<string, string | undefined>): Promise<string> {
  const files: Record<string, string | Uint8Array> = {};
  for (const [i, [name, caption]] of Object.entries(captions).entries()) {
    files[`${name}.png`] = await plainPng(i);
    if (caption !== undefined) files[`${name}.txt`] = caption;
  }
  return writeFolder(root, files);
}

describe("openSplit", () => {
  it("spreads a limit evenly, and writes the whole list of what was skipped", async () => {
    const dir = await data(Object.fromEntries(Array.from({ length: 9 }, (_, i) => [`image ${i}`, undefined])));
    const broken = await writeFolder(
      dir,
      Object.fromEntries(["a", "b", "c", "d", "e\u001b"].map((n) => [`${n}.bmp`, ""])),
    );
    const skippedList = join(root, "skipped.txt");
    const three = await openSplit(dir, "all", { size: 8, limit: 3, skippedList });
    expect(Array.from({ length: 3 }, (_, i) => three.caption(i))).toEqual(["image 0", "image 3", "image 6"]);
    expect(() => three.name(3)).toThrow(/index/);
    expect((await openSplit(dir, "all", { size: 8, limit: 30 })).size).toBe(9);
    const lines = (await readFile(skippedList, "utf8")).trimEnd().split("\n");
    expect(lines).toHaveLength(5);
    expect(lines[4]).toBe(`${broken.slice(dir.length + 1)}/e\\u{1b}.bmp: .bmp files are not read; convert it to PNG`);
  });
});

describe("what is said of training data", () => {
  it("counts images and held-out ones, and captions by where they come from", async () => {
    const dir = await data({ "00": undefined, "01": undefined, cat: "a cat", dog: "" });
    const set = await openSplit(dir, "train", { size: 8, validationSplit: 0.25 });
    const texts = ["00", "01"].filter((name) =>
      Array.from({ length: 3 }, (_, i) => set.caption(i)).includes(name),
    ).length;
    const [images, captions] = describeTrainingData(set, dir, 0.25);
    expect(images).toBe(`data      3 images of ${dir} to train on, 8 pixels; 1 more held out: 25 % of 4`);
    expect(captions).toContain(`${texts} from file names`);
    const whole = await openSplit(dir, "train", { size: 8, validationSplit: 0.05 });
    expect(describeTrainingData(whole, dir, 0.05)).toEqual([
      `data      4 images of ${dir} to train on, 8 pixels; none held out: 5 % of 4 is less than one`,
      "captions  2 from file names, 2 from text files; 1 of them empty",
    ]);
    const off = await openSplit(dir, "train", { size: 8, validationSplit: 0, instancePrompt: "sks" });
    expect(describeTrainingData(off, dir, 0)).toEqual([
      `data      4 images of ${dir} to train on, 8 pixels; none held out`,
      "captions  2 the instance prompt, 2 from text files; 1 of them empty",
    ]);
    expect(captionWarnings(off)).toEqual([]);
    const [warning] = captionWarnings(whole);
    expect(warning).toMatch(
      /^warning +2 images without a caption: trained on their file names, such as "00" of 00\.png\. .*--instance-prompt/,
    );
  });

  it("warns of held-out images that are copies of others", async () => {
    const png = await plainPng();
    const copies = await writeFolder(
      root,
      Object.fromEntries(["a", "b", "c", "d"].map((name) => [`${name}.png`, png])),
    );
    const warnings = async (dir: string, validationSplit: number) =>
      heldOutWarnings(await openSplit(dir, "all", { size: 8, validationSplit }));
    expect(await warnings(copies, 0.25)).toEqual([expect.stringMatching(/the held-out image is a copy/)]);
    expect(await warnings(copies, 0.5)).toEqual([expect.stringMatching(/2 of 2 held-out images are copies/)]);
    expect(await warnings(await data({ a: "a", b: "b" }), 0.5)).toEqual([]);
  });

  it("warns of validation images that are trained on", async () => {
    const [own, other] = [await data({ a: "a", b: "b" }), await data({ x: "x", y: "y", z: "z" })];
    const open = (dir: string) => openSplit(dir, "all", { size: 8 });
    const [warning] = validationWarnings(await open(own), await open(other));
    expect(warning).toMatch(/2 of 3 validation images are trained on, too, such as x\.png/);
    const apart = await writeFolder(root, { "n.png": await plainPng(77) });
    expect(validationWarnings(await open(own), await open(apart))).toEqual([]);
  });

  it("suggests the evaluation that sees the data as the training did", async () => {
    const dir = await data({ a: "a", b: "b" });
    const options = (given: object) => withDefaults(DATA_OPTIONS, given, "test");
    const small = await openSplit(dir, "train", { size: 8 });
    expect(evaluationArguments(small, [dir], options({ skippedList: "x", repeats: 3 }))).toEqual([
      ...["--data", dir, "--split", "train"],
    ]);
    const half = await openSplit(dir, "train", { size: 8, validationSplit: 0.5 });
    const given = { validationSplit: 0.5, instancePrompt: "", captionExtension: ".cap", followLinks: true };
    expect(evaluationArguments(half, [dir], options(given))).toEqual([
      ...["--data", dir, "--validation-split", "0.5", "--instance-prompt", "", "--caption-extension", ".cap"],
      "--follow-links",
    ]);
  });

  it("names folders by absolute paths, with their repeats, and leaves ids of the hub", async () => {
    const dir = await writeFolder(root, { "a.png": "", "b=2/a.png": "" });
    expect(absoluteData(`${relative(process.cwd(), dir)}=3`)).toBe(`${dir}=3`);
    expect(absoluteData(join(dir, "b=2"))).toBe(join(dir, "b=2"));
    expect(absoluteData("owner/name=3")).toBe("owner/name=3");
    expect(absoluteData("icons:noto")).toBe("icons:noto");
  });

  it("lists buckets, repeats and regularization images, and warns of images that are scaled up", async () => {
    const files: Record<string, Uint8Array> = {};
    const sizes = { "2_dog/wide": [256, 128], "2_dog/tall": [128, 256], "reg/1_dog/small": [64, 64] } as const;
    for (const [name, [width, height]] of Object.entries(sizes)) {
      files[`${name}.png`] = await sharp({ create: { width, height, channels: 3, background: "red" } })
        .png()
        .toBuffer();
    }
    const dir = await writeFolder(root, files);
    const set = await openSplit(dir, "train", { size: 128, bucket: true, regularizationWeight: 0.5 });
    expect(describeTrainingData(set, [dir], 0)).toEqual([
      `data      2 images of ${dir} to train on, 128 pixels; none held out`,
      "          1 regularization image, which count 0.5 times",
      "          with repeats 8 an epoch",
      "buckets   3 shapes, width × height:",
      "  64×192   1 image, 2 an epoch",
      "  128×128  1 image, 4 an epoch",
      "  192×64   1 image, 2 an epoch",
      "captions  3 from folders' names",
    ]);
    const [warning] = upscaleWarnings(set);
    expect(warning).toMatch(/1 image is smaller .*: reg\/1_dog\/small\.png of 64×64 pixels 2 times/);
    const kept = await openSplit(dir, "train", { size: 128, bucket: true, bucketNoUpscale: true });
    expect(upscaleWarnings(kept)).toEqual([]);
  });

  it("suggests a prompt that says something", async () => {
    const prompt = async (captions: Record<string, string | undefined>) =>
      examplePrompt(await openSplit(await data(captions), "train", { size: 8 }));
    expect(await prompt({ "00": undefined, "red-fox": undefined })).toBe("red fox");
    expect(await prompt({ "00": "", "01": "a cat" })).toBe("a cat");
    expect(await prompt({ IMG_2041: undefined, "DSC 0007": undefined, "20240101_120000": undefined })).toBe("PROMPT");
    expect(await prompt({ a: "\u001b[2J", b: "x".repeat(500) })).toBe("PROMPT");
  });
});

describe("describeSkipped", () => {
  it("names files of one reason together, the most first, and escapes them", () => {
    const skipped = [
      ...Array.from({ length: 5 }, (_, i) => ({ path: `${i}.npz`, reason: ".npz files are not read" })),
      { path: "a\u001b\n.png", reason: "is broken" },
      { path: "b.png", reason: "is damaged" },
      { path: "c.png", reason: "is bent" },
    ];
    expect(describeSkipped(skipped, "--list")).toEqual([
      "skipped   8 files:",
      "  0.npz, 1.npz, 2.npz, … and 2 more: .npz files are not read",
      "  a\\u{1b}\\u{a}.png: is broken",
      "  b.png: is damaged",
      "  … and 1 more (--list)",
    ]);
    expect(describeSkipped([])).toEqual([]);
  });
});
