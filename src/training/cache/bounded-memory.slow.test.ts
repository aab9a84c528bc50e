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

const IMAGES = 60;
const SIDE = 192;
/** Of text states, 16×40 and 20 numbers each, and of latents with their spread. */
const BYTES_PER_IMAGE = 4 * (16 * 40 + 20 + 2 * 4 * (SIDE / 2) ** 2);

let dir: string;
let pipeline: StableDiffusionXLPipeline;
beforeAll(async () => {
  pipeline = await StableDiffusionXLPipeline.fromPretrained("test/reference/pipeline-tiny-xl");
  dir = await mkdtemp(join(tmpdir(), "fera-bounded-"));
  await mkdir(join(dir, "images"));
  for (let i = 0; i < IMAGES; i++) {
    const background = { r: i, g: 255 - i, b: (7 * i) % 255 };
    const file = join(dir, "images", `${i}.png`);
    await sharp({ create: { width: SIDE, height: SIDE, channels: 3, background } }).toFile(file);
    await writeFile(join(dir, "images", `${i}.txt`), `a ${Array.from(i.toString(4)).join(" ")}`);
  }
});
afterAll(() => rm(dir, { recursive: true, force: true }));

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

/** Bytes of tensors that stay: threads let go of theirs a little later, when there is time. */
async function heldNow(): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 3; round++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    collectGarbage();
    least = Math.min(least, process.memoryUsage().arrayBuffers);
  }
  return least;
}

/** Bytes of tensors in all, once everything is encoded and two epochs of batches were drawn. */
async function heldBy(mode: CacheMode): Promise<number> {
  const dataset = await openDataset(join(dir, "images"), { size: SIDE, validationSplit: 0 });
  const cacheDir = await mkdtemp(join(dir, "cache-"));
  const rows = await openDatasetRows(pipeline, dataset, {
    cacheLatents: mode,
    cacheTextEncoderOutputs: mode,
    cacheDir,
  });
  const objective = createObjective(pipeline.schedulerConfig);
  const batches = new DiffusionBatches(rows, { batchSize: 4, objective, generator: new Generator(0) });
  let held = Number.POSITIVE_INFINITY;
  for (let i = 0; i < IMAGES / 2; i++) {
    await batches.next();
    // What is held all the time, whatever else has not been let go of at one moment or the other.
    if (i % 3 === 2) held = Math.min(held, await heldNow());
  }
  expect(batches.state().epochs).toBe(2);
  await rows.close();
  return held;
}

it("SDXL's rows on disk take no memory that grows with the number of images and captions; in memory they do", async () => {
  // What is loaded once.
  await heldBy("disk");
  const [disk, memory] = [await heldBy("disk"), await heldBy("memory")];
  // Both hold what is loaded once, and a batch or two of four.
  expect(memory - disk).toBeGreaterThan(0.7 * IMAGES * BYTES_PER_IMAGE);
});
