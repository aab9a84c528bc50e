import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeFolder } from "../support/data-folder.js";
import { runFera } from "../support/fera-program.js";
import { writeTinyPipeline } from "../support/tiny-pipeline.js";

let dir: string;
let folder: string;
const png = (background: string, width = 96, height = 64) =>
  sharp({ create: { width, height, channels: 3, background } })
    .png()
    .toBuffer();

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-cli-data-"));
  const red = await png("red");
  folder = await writeFolder(dir, {
    "3_sks cat/a.png": red,
    "3_sks cat/copy.png": red,
    "3_sks cat/b.png": await png("lime", 64, 96),
    "3_sks cat/b.caption": "red",
    "reg/1_cat/c.png": await png("blue", 32, 32),
    "mask/a.png": await png("white"),
    "notes.pdf": "x",
  });
});
afterAll(() => rm(dir, { recursive: true, force: true }));

describe("fera train on a folder as kohya's scripts have it", () => {
  it("trains on its images with their repeats and captions, on reg as regularization, never on a mask", async () => {
    await writeTinyPipeline(join(dir, "model"));
    const output = join(dir, "trained");
    const train = await runFera(
      ...["train", "--model", join(dir, "model"), "--data", folder, "--output", output, "--resolution", "32"],
      ...["--bucket", "--bucket-step", "16", "--mask", "--flip", "--shuffle-caption", "--regularization-weight", "0.5"],
      ...["--steps", "3", "--batch-size", "2", "--threads", "1", "--cache-dir", join(dir, "cache")],
    );
    expect([train.code, train.stderr]).toEqual([0, expect.not.stringContaining("fera:")]);
    expect(train.stdout).toContain("1 regularization image, which count 0.5 times");
    expect(train.stdout).toContain("the loss is weighted by masks");
    const learned = JSON.parse(await readFile(join(output, "dataset.json"), "utf8"));
    expect(Object.keys(learned)).toEqual([
      ...["3_sks cat/a.png", "3_sks cat/b.png", "3_sks cat/copy.png", "reg/1_cat/c.png"],
    ]);
    expect(Object.values(learned).map((one) => (one as { weight: string }).weight)).toEqual([
      ...["1 · 3", "1 · 3", "1 · 3", "0.5 · 9"],
    ]);
    // What it suggests to measure with sees the same images, less those of the class.
    const suggested = /npx fera (evaluate .*)/.exec(train.stdout)![1]!;
    expect(suggested).toContain("--bucket --bucket-step 16 --mask");
    const words = suggested.match(/'[^']*'|\S+/g)!.map((word) => word.replaceAll("'", ""));
    const measured = await runFera(...words, "--threads", "1", "--timesteps-per-image", "1", "--resolution", "32");
    expect(measured.stdout).toContain("3 training images");
    expect(measured.code).toBe(0);
    const resumed = await runFera("train", "--resume", "--output", output, "--steps", "4");
    expect(resumed.stderr).toContain("resuming after step 3");
    const other = await runFera("train", "--resume", "--output", output, "--steps", "5", "--repeats", "2");
    expect([other.code, other.stderr]).toEqual([2, expect.stringContaining("--repeats was 1; got 2")]);
  });
});

describe("fera data", () => {
  it("shows images, buckets, captions, copies, and what is skipped and why", async () => {
    const { code, stdout, stderr } = await runFera(
      ...["data", folder, "--resolution", "64", "--bucket", "--bucket-step", "16"],
    );
    expect(code).toBe(0);
    expect(stdout).toContain(`data      3 images of ${folder} to train on, 64 pixels; none held out`);
    expect(stdout).toContain("1 regularization image\n");
    expect(stdout).toMatch(
      /buckets {3}3 shapes, width × height:\n {2}48×80 +1 image, 3 an epoch\n {2}64×64 +1 image, 9 an/,
    );
    expect(stdout).toContain("captions  3 from folders' names, 1 from text files");
    expect(stdout).toContain("3_sks cat/b.png: red");
    expect(stdout).toContain("2 copies of one file: 3_sks cat/a.png, 3_sks cat/copy.png");
    expect(stderr).toMatch(/1 image is smaller .*reg\/1_cat\/c\.png of 32×32 pixels 2 times/);
    expect(stderr).toMatch(/mask\/a\.png: is a mask; masks count only where they are asked for/);
    expect(stderr).toContain("notes.pdf: .pdf files are not read");
  });

  it("writes a contact sheet and all that it knows", async () => {
    const [sheet, json] = [join(dir, "sheet.jpg"), join(dir, "data.json")];
    const { code, stdout } = await runFera(
      ...["data", folder, "--resolution", "64", "--mask", "--contact-sheet", sheet, "--json", json, "--examples", "0"],
    );
    expect(code).toBe(0);
    expect(stdout).toContain(`drawn     all images in ${sheet}`);
    expect((await sharp(sheet).metadata()).format).toBe("jpeg");
    const { images, buckets, hasMasks, skipped } = JSON.parse(await readFile(json, "utf8"));
    expect(hasMasks).toBe(true);
    expect(buckets).toEqual([{ width: 64, height: 64, images: 4, perEpoch: 18 }]);
    expect(images[2]).toMatchObject({ name: "3_sks cat/copy.png", copyOf: "3_sks cat/a.png", repeats: 3 });
    expect(images[3]).toMatchObject({ isRegularization: true, originalWidth: 32, caption: "cat", repeats: 9 });
    expect(skipped).toEqual([{ path: "notes.pdf", reason: ".pdf files are not read" }]);
  });

  it("refuses a contact sheet of another format, and a missing folder", async () => {
    const wrong = await runFera("data", folder, "--contact-sheet", "sheet.bmp");
    expect([wrong.code, wrong.stderr]).toEqual([2, expect.stringMatching(/--contact-sheet must end in \.png/)]);
    const missing = await runFera("data", join(dir, "nowhere"));
    expect([missing.code, missing.stderr]).toEqual([1, expect.stringMatching(/no such folder/)]);
  });
});
