// How much the caption counts: the embedded model's loss on drawings that it was trained on, with their own captions, with
// another drawing's, and with none. The same noise for all.
// Usage: npx tsx scripts/embedded/caption-loss.ts [PIPELINE_FOLDER]

import { DDPMScheduler, Generator, randn, StableDiffusionPipeline, tensor } from "../../src/index.js";
import { captionOf, rasterizeIcons, toModelInput } from "../../src/training/data/icons.js";
import { encodeImages, tokenizeCaptions } from "../../src/training/encode-images.js";
import * as recipe from "./recipe.js";

const [folder = "assets/icons"] = process.argv.slice(2);
const TIMESTEPS = [999, 950, 900, 800, 700, 600, 400, 200, 50];
const DRAWINGS = 128;
const BATCH = 16;
const SIZE = recipe.LATENT_SIZE;

const { unet, vae, textEncoder, tokenizer } = await StableDiffusionPipeline.fromPretrained(folder);
const names = recipe.trainingNames().filter((_, i) => i % 12 === 0);
names.length = DRAWINGS;
const rgb = await rasterizeIcons("noto", names, recipe.IMAGE_SIZE);
const { latents } = await encodeImages(vae, {
  size: DRAWINGS,
  imageSize: recipe.IMAGE_SIZE,
  image: async (index) => toModelInput(rgb, recipe.IMAGE_SIZE, [index]),
});
const captions = names.map(captionOf);
const kinds = {
  own: captions,
  "another's": captions.map((_, i) => captions[(37 * i + 11) % DRAWINGS]!),
  none: captions.map(() => ""),
};
const scheduler = new DDPMScheduler(recipe.SCHEDULER_CONFIG);
const perBatch = BATCH * 4 * SIZE * SIZE;

console.log(["timestep", ...Object.keys(kinds)].map((cell) => cell.padStart(10)).join(""));
for (const timestep of TIMESTEPS) {
  const losses = [];
  for (const texts of Object.values(kinds)) {
    const generator = new Generator(recipe.SEED);
    let sum = 0;
    for (let first = 0; first < DRAWINGS; first += BATCH) {
      const from = (first / BATCH) * perBatch;
      const clean = tensor(latents.data.slice(from, from + perBatch), [BATCH, 4, SIZE, SIZE]);
      const noise = randn([BATCH, 4, SIZE, SIZE], { generator });
      const timesteps = tensor(new Array(BATCH).fill(timestep), [BATCH], "int64");
      const inputIds = tokenizeCaptions(tokenizer, texts.slice(first, first + BATCH));
      const predicted = await unet.predict({
        latents: scheduler.addNoise(clean, noise, timesteps),
        timesteps,
        encoderHiddenStates: await textEncoder.encode(inputIds),
      });
      const { data: target } = scheduler.getVelocity(clean, noise, timesteps);
      sum += predicted.data.reduce((total, value, i) => total + (value - (target[i] as number)) ** 2, 0);
    }
    losses.push(sum / (DRAWINGS * 4 * SIZE * SIZE));
  }
  console.log([String(timestep), ...losses.map((loss) => loss.toFixed(3))].map((cell) => cell.padStart(10)).join(""));
}
process.exit(0);
