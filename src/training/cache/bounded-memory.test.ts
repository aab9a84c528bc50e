import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import sharp from "sharp";
import { afterAll, beforeAll, expect, it } from "vitest";
import "../../index.js";
import { createObjective } from "../../diffusion/index.js";
import { StableDiffusionXLPipeline } from "../../pipelines/index.js";
import { Generator } from "../../tensor/random.js";
import { DiffusionBatches } from "../diffusion-batches.js";
import { openDataset } from "../index.js";
import type { CacheMode } from "./cache-modes.js";
import { openDatasetRows } from "./dataset-rows.js";

const IMAGES = 80;
/** Of text states, 16×40 and 20 numbers each, and of latents with their spread. */
const BYTES_PER_IMAGE = 4 * (16 * 40 + 20 + 2 * 4 * 16 * 16);

let dir: string;
let pipeline: StableDiffusionXLPipeline;
beforeAll(async () => {
  pipeline = await StableDiffusionXLPipeline.fromPretrained("test/reference/pipeline-tiny-xl");
  dir = await mkdtemp(join(tmpdir(), "fera-bounded-"));
  await mkdir(join(dir, "images"));
  for (let i = 0; i < IMAGES; i++) {
    const background = { r: i, g: 255 - i, b: (7 * i) % 255 };
    const file = join(dir, "images", `${i}.png`);
    await sharp({ create: { width: 32, height: 32, channels: 3, background } }).toFile(file);
    await writeFile(join(dir, "images", `${i}.txt`), `a ${Array.from(i.toString(4)).join(" ")}`);
  }
});
afterAll(() => rm(dir, { recursive: true, force: true }));

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

/** Bytes of tensors that are held once everything is encoded and two epochs of batches were drawn. */
async function heldBy(mode: CacheMode): Promise<number> {
  const dataset = await openDataset(join(dir, "images"), { size: 32, validationSplit: 0 });
  collectGarbage();
  const before = process.memoryUsage().arrayBuffers;
  const cacheDir = await mkdtemp(join(dir, "cache-"));
  const rows = await openDatasetRows(pipeline, dataset, {
    cacheLatents: mode,
    cacheTextEncoderOutputs: mode,
    cacheDir,
  });
  const objective = createObjective(pipeline.schedulerConfig);
  const batches = new DiffusionBatches(rows, { batchSize: 4, objective, generator: new Generator(0) });
  for (let i = 0; i < IMAGES / 2; i++) await batches.next();
  // What has ended waits for the next turn to be let go.
  await new Promise((resolve) => setTimeout(resolve, 100));
  collectGarbage();
  const held = process.memoryUsage().arrayBuffers - before;
  expect(batches.state().epochs).toBe(2);
  await rows.close();
  return held;
}

it("SDXL's rows on disk take no memory that grows with the number of images and captions; in memory they do", async () => {
  // What is loaded once.
  await heldBy("disk");
  const [disk, memory] = [await heldBy("disk"), await heldBy("memory")];
  expect(memory).toBeGreaterThan(IMAGES * BYTES_PER_IMAGE);
  // A batch of four or two, and what ONNX Runtime's thread has not let go of yet.
  expect(disk).toBeLessThan(0.25 * IMAGES * BYTES_PER_IMAGE);
});
