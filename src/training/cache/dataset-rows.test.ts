import { copyFile, cp, mkdir, mkdtemp, open, readdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { relativeError } from "../../../test/support/relative-error.js";
import "../../index.js";
import { ModelWeights } from "../../nn/index.js";
import { StableDiffusionXLPipeline } from "../../pipelines/index.js";
import { readSafetensors } from "../../storage/index.js";
import type { Tensor } from "../../tensor/tensor.js";
import { encodeDataset } from "../encode-dataset.js";
import { encodeImageBatch } from "../encode-images.js";
import { type ImageDataset, openDataset } from "../index.js";
import { type DatasetRowsOptions, openDatasetRows } from "./dataset-rows.js";

const MODEL = "test/reference/pipeline-tiny-xl";
const VAE_WEIGHTS = `${MODEL}/vae/diffusion_pytorch_model.safetensors`;
const SIZE = 32;
/** Between two ways to divide the same work. */
const TOLERANCE = 1e-5;

let root: string;
let cacheDir: string;
let pipeline: StableDiffusionXLPipeline;
let dataset: ImageDataset;
let messages: string[];

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "fera-cache-"));
  const images = join(root, "images");
  await sharp({ create: { width: 8, height: 8, channels: 3, background: "teal" } }).toFile(join(root, "seed.png"));
  await mkdir(images);
  for (const [i, [width, height]] of [
    [96, 48],
    [30, 61],
    [40, 40],
  ].entries()) {
    const data = Uint8Array.from({ length: 3 * width! * height! }, (_, k) => (k * (7 + i)) % 251);
    await sharp(data, { raw: { width: width!, height: height!, channels: 3 } }).toFile(join(images, `red ${i}.png`));
    await writeFile(join(images, `red ${i}.txt`), ["a red circle", "a blue square", "a red circle"][i]!);
  }
  pipeline = await StableDiffusionXLPipeline.fromPretrained(MODEL);
  dataset = await openDataset(images, { size: SIZE });
});
afterAll(() => rm(root, { recursive: true, force: true }));
beforeEach(async () => {
  cacheDir = await mkdtemp(join(root, "cache-"));
  messages = [];
});

/** Rows, and how many images and captions were encoded for them. */
async function opened(options: DatasetRowsOptions = {}, of: ImageDataset = dataset) {
  const made = { images: 0, captions: 0 };
  const first: Partial<typeof made> = {};
  const rows = await openDatasetRows(pipeline, of, {
    cacheDir,
    onMessage: (message) => void messages.push(message),
    onProgress: (what, done, total) => {
      first[what] ??= done;
      made[what] = total - first[what];
    },
    ...options,
  });
  return { rows, made };
}

const everyRow = (of: ImageDataset = dataset) => Array.from({ length: of.size }, (_, index) => ({ index }));
const files = async (): Promise<string[]> =>
  (await readdir(cacheDir, { recursive: true }))
    .filter((name) => name.endsWith(".entries"))
    .map((name) => join(cacheDir, name));
const fileOf = async (kind: string): Promise<string> => (await files()).find((name) => name.includes(`${kind}-`))!;

describe("rows from the cache", () => {
  it("are what encoding everything in memory gives, wherever they are kept, to the bit between the ways to keep them", async () => {
    const whole = await encodeDataset(pipeline, dataset);
    const results = [];
    for (const mode of ["disk", "memory", "none"] as const) {
      const { rows } = await opened({ cacheLatents: mode, cacheTextEncoderOutputs: mode });
      results.push(await rows.read(everyRow()));
      for (const [name, { data, shape }] of Object.entries(whole.empty)) {
        expect(rows.empty[name]!.shape).toEqual(shape);
        expect(rows.empty[name]!.data).toEqual(data);
      }
      await rows.close();
    }
    const [disk, memory, none] = results;
    expect(disk).toEqual(memory);
    expect(disk).toEqual(none);
    expect(relativeError(disk!.latents.data, whole.latents.data)).toBeLessThan(TOLERANCE);
    expect(relativeError(disk!.latentStd!.data, whole.latentStd!.data)).toBeLessThan(TOLERANCE);
    expect(Object.keys(disk!.conditioning).sort()).toEqual(Object.keys(whole.conditioning).sort());
    for (const [name, { data, shape }] of Object.entries(whole.conditioning)) {
      expect(disk!.conditioning[name]!.shape).toEqual(shape);
      expect(relativeError(disk!.conditioning[name]!.data as Float32Array, data as Float32Array)).toBeLessThan(
        TOLERANCE,
      );
    }
  });

  it("are encoded once: the next training finds all of them, in two files", async () => {
    const first = await opened();
    expect(first.made).toEqual({ images: 3, captions: 2 });
    const before = await first.rows.read(everyRow());
    await first.rows.close();
    expect(await files()).toHaveLength(2);
    const second = await opened();
    expect(second.made).toEqual({ images: 0, captions: 0 });
    expect(await second.rows.read(everyRow())).toEqual(before);
    await second.rows.close();
    expect(messages).toEqual([]);
  });

  it("go on where encoding was cut off, and are the same", async () => {
    const whole = await opened();
    const expected = await whole.rows.read(everyRow());
    await whole.rows.close();
    await rm(cacheDir, { recursive: true });
    const stop = new AbortController();
    const cut = opened({
      signal: stop.signal,
      onProgress: (what, done) => {
        if (what === "captions" && done === 1) stop.abort();
      },
    });
    await expect(cut).rejects.toThrow(/abort/i);
    const resumed = await opened();
    expect(resumed.made).toEqual({ images: 3, captions: 1 });
    expect(await resumed.rows.read(everyRow())).toEqual(expected);
    await resumed.rows.close();
  });

  it("are made again where a file was cut off anywhere: only those that are not whole", async () => {
    const whole = await opened();
    const expected = await whole.rows.read(everyRow());
    await whole.rows.close();
    const path = await fileOf("latents");
    const { size } = await stat(path);
    const copy = join(root, "whole");
    await copyFile(path, copy);
    for (const [length, missing] of [
      [0, 3],
      [40, 3],
      [Math.floor(size / 2), 2],
      [size - 1, 1],
    ] as const) {
      for (const other of await files()) if (other.includes("latents-") && other !== path) await rm(other);
      await copyFile(copy, path);
      await truncate(path, length);
      const again = await opened();
      expect(again.made.images, `${length} of ${size} bytes`).toBe(missing);
      expect(await again.rows.read(everyRow())).toEqual(expected);
      await again.rows.close();
    }
  });

  it("are made again where a byte has changed, which is said", async () => {
    const whole = await opened();
    const expected = await whole.rows.read(everyRow());
    await whole.rows.close();
    for (const kind of ["latents", "text"]) {
      const path = await fileOf(kind);
      const bytes = await readFile(path);
      const file = await open(path, "r+");
      await file.write(Buffer.of(bytes.at(-5)! ^ 1), 0, 1, bytes.length - 5);
      await file.close();
    }
    const again = await opened();
    expect(await again.rows.read(everyRow())).toEqual(expected);
    await again.rows.close();
    expect(messages).toHaveLength(2);
    for (const message of messages) expect(message).toMatch(/an entry of the cache is damaged .*; it is made again/);
    messages = [];
    const third = await opened();
    expect(await third.rows.read(everyRow())).toEqual(expected);
    expect(messages).toEqual([]);
    await third.rows.close();
  });
});

describe("stale caches", () => {
  it("cannot be: other pixels, captions, sizes, variants and weights have entries of their own", async () => {
    const { rows } = await opened();
    const before = await rows.read(everyRow());
    await rows.close();

    const images = join(root, "changed");
    await cp(join(root, "images"), images, { recursive: true });
    await writeFile(join(images, "red 0.txt"), "a blue circle");
    await sharp(join(root, "seed.png")).resize(40, 40).toFile(join(images, "red 2.png"));
    const changed = await openDataset(images, { size: SIZE });
    const other = await opened({}, changed);
    expect(other.made).toEqual({ images: 1, captions: 1 });
    const after = await other.rows.read(everyRow(changed));
    await other.rows.close();
    const row = (of: typeof before, i: number) => [
      ...of.latents.data.subarray((i * of.latents.size) / 3, ((i + 1) * of.latents.size) / 3),
    ];
    expect(row(after, 0)).toEqual(row(before, 0));
    expect(row(after, 2)).not.toEqual(row(before, 2));

    const larger = await opened({}, await openDataset(join(root, "images"), { size: 64 }));
    expect(larger.made).toEqual({ images: 3, captions: 0 });
    await larger.rows.close();

    const { vae } = pipeline;
    const weights = new Map(vae.weights.weights);
    const { tensors } = await readSafetensors(VAE_WEIGHTS);
    const bias = tensors.get("encoder.conv_in.bias") as Tensor<"float32">;
    bias.data[0]! += 1;
    weights.set("encoder.conv_in.bias", { shape: bias.shape, tensor: bias });
    const usual = vae.weights;
    await vae.replaceWeights(new ModelWeights(weights, "changed"));
    try {
      const anew = await opened();
      expect(anew.made).toEqual({ images: 3, captions: 0 });
      await anew.rows.close();
    } finally {
      await vae.replaceWeights(usual);
    }
    const same = await opened();
    expect(same.made).toEqual({ images: 0, captions: 0 });
    await same.rows.close();
  });
});

describe("variants", () => {
  it("flip doubles what is encoded, and gives the latents of the mirrored image", async () => {
    const { rows, made } = await opened({ flip: true, cacheLatents: "memory" });
    expect(made.images).toBe(3);
    const mirrored = await rows.read([{ index: 0, variant: { flip: true } }]);
    const image = await dataset.image(0, { flip: true });
    const { latents } = await encodeImageBatch(pipeline.vae, [image], { width: SIZE, height: SIZE });
    expect(mirrored.latents).toEqual(latents);
    expect((await rows.read([{ index: 0 }])).latents).not.toEqual(latents);
    await rows.close();
  });

  it("captions that vary are encoded when they are drawn; keeping them is refused", async () => {
    const { rows } = await opened({ variedCaptions: true });
    const { conditioning } = await rows.read([{ index: 0, caption: "a blue square" }]);
    expect(conditioning.encoderHiddenStates).toEqual(
      (await rows.read([{ index: 1 }])).conditioning.encoderHiddenStates,
    );
    await rows.close();
    await expect(opened({ variedCaptions: true, cacheTextEncoderOutputs: "disk" })).rejects.toThrow(
      /cacheTextEncoderOutputs: captions vary, so that nothing can be kept; got "disk"/,
    );
    await expect(opened({ randomCrop: true, cacheLatents: "memory" })).rejects.toThrow(
      /cacheLatents: the crop is random/,
    );
  });
});

it("a folder that cannot be written costs time, not the result, and is said once", async () => {
  const file = join(cacheDir, "file");
  await writeFile(file, "");
  const { rows } = await opened({ cacheDir: join(file, "below") });
  expect((await rows.read(everyRow())).latents.shape[0]).toBe(3);
  await rows.close();
  expect(messages).toHaveLength(2);
  expect(messages[0]).toMatch(
    /cannot be written: .*kept in memory and made again by the next run; --cache-dir names another/,
  );
});
