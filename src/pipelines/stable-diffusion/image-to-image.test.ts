import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { relativeError } from "../../../test/support/relative-error.js";
import { writeTinyPipeline } from "../../../test/support/tiny-pipeline.js";
import type { AutoencoderTiny } from "../../models/autoencoder-tiny/autoencoder-tiny.js";
import "../../storage/node.js";
import "../../runtime/node.js";
import { Generator, randn } from "../../tensor/random.js";
import { tensor } from "../../tensor/tensor.js";
import { StableDiffusionPipeline } from "./stable-diffusion-pipeline.js";

const TOLERANCE = 1e-5;
const PROMPT = "a red circle";

let dir: string;
let pipe: StableDiffusionPipeline;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-image-to-image-"));
  await writeTinyPipeline(dir);
  pipe = await StableDiffusionPipeline.fromPretrained(dir);
});
afterAll(async () => {
  await pipe?.release();
  await rm(dir, { recursive: true, force: true });
});

const image = tensor(
  Float32Array.from({ length: 3 * 16 * 24 }, (_, i) => Math.sin(i)),
  [3, 16, 24],
);

it("diffuses the image's latents with the seed's first draw, and denoises them from there", async () => {
  const { latents, images } = await pipe.generate({
    ...{ prompt: PROMPT, image, steps: 10, strength: 0.1, seed: 3, guidanceScale: 1 },
  });
  expect(images[0]!.shape).toEqual([3, 16, 24]);

  // The tiny autoencoder gives one latent, not a distribution to draw from.
  const encoded = await (pipe.vae as AutoencoderTiny).encode(image.reshape([1, ...image.shape]));
  const clean = tensor(
    encoded.latents.data.map((value) => (value - 0.1) * 0.8),
    [1, 4, 4, 6],
  );
  const noise = randn([1, 4, 4, 6], { generator: new Generator(3) });
  pipe.scheduler.setTimesteps(10);
  const t = pipe.scheduler.timesteps.at(-1)!;
  const noisy = pipe.scheduler.addNoise(clean, noise, tensor([t]));
  const encoderHiddenStates = await pipe.encodePrompt([PROMPT]);
  const output = await pipe.unet.predict({ latents: noisy, timesteps: tensor([t]), encoderHiddenStates });
  const { prevSample } = pipe.scheduler.step(output, t, noisy);
  expect(relativeError(latents.data, prevSample.data)).toBeLessThan(TOLERANCE);
});

it("reports the steps that are done, which are the last ones", async () => {
  const seen: number[][] = [];
  await pipe.generate({
    ...{ prompt: PROMPT, image, steps: 5, strength: 0.6, seed: 3 },
    onStep: ({ step, steps, timestep }) => void seen.push([step, steps, timestep]),
  });
  expect(seen).toEqual(pipe.scheduler.timesteps.slice(2).map((timestep, i) => [i + 1, 3, timestep]));
});

it("gives each image its own noise, and each prompt its own image", async () => {
  const other = tensor(new Float32Array(image.size).fill(-0.5), image.shape);
  const options = { steps: 2, strength: 0.5, seed: 3 };
  const prompt = [PROMPT, PROMPT];
  const both = await pipe.generate({ ...options, prompt, image: [image, other], numImages: 2 });
  const noise = randn([4, 4, 4, 6], { generator: new Generator(3) });
  for (const [index, start] of [image, image, other, other].entries()) {
    const latents = tensor(noise.data.slice(index * 96, (index + 1) * 96), [1, 4, 4, 6]);
    const single = await pipe.generate({ ...options, prompt: PROMPT, image: start, latents });
    expect(relativeError(both.images[index]!.data, single.images[0]!.data)).toBeLessThan(TOLERANCE);
  }
});

it("ends with an AbortError", async () => {
  const controller = new AbortController();
  const run = pipe.generate({
    ...{ prompt: PROMPT, image, steps: 5, strength: 0.6, signal: controller.signal },
    onStep: () => controller.abort(),
  });
  await expect(run).rejects.toMatchObject({ name: "AbortError", code: DOMException.ABORT_ERR });
});
