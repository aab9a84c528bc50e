// Draws a grid of samples of the embedded model: names that it was trained on and prompts that it never saw.
// Usage: npx tsx scripts/embedded/sample-grid.ts PIPELINE_FOLDER OUTPUT.png [GUIDANCE_SCALE]

import { renderGrid } from "../../src/images/grid.js";
import { StableDiffusionPipeline, writePng } from "../../src/index.js";
import { captionOf } from "../../src/training/data/icons.js";
import { trainingNames } from "./recipe.js";

const [folder = "assets/icons", output = "runs/embedded/samples.png", guidance = "6"] = process.argv.slice(2);

const SEEN = [
  ["red apple", "green apple", "tangerine", "blue heart", "green heart"],
  ["red circle", "blue circle", "orange square", "purple square", "full moon"],
  ["grinning face", "cat face", "frog", "basketball", "watermelon"],
  ["sunflower", "pizza", "fire", "rocket", "blue book"],
];
const UNSEEN = [
  ["purple apple", "blue flower", "yellow star", "red car", "pink cat face"],
  ["green fire", "blue bird", "golden key", "orange ball", "green cat face"],
];

const trained = new Set(trainingNames().map(captionOf));
for (const prompt of SEEN.flat()) if (!trained.has(prompt)) throw new Error(`${prompt} was not trained on`);
for (const prompt of UNSEEN.flat()) if (trained.has(prompt)) throw new Error(`${prompt} was trained on`);

const pipeline = await StableDiffusionPipeline.fromPretrained(folder);
const started = Date.now();
const pictures = [];
for (const prompt of [...SEEN, ...UNSEEN]) {
  const { images } = await pipeline.generate({ prompt, steps: 25, guidanceScale: Number(guidance), seed: 7 });
  pictures.push([await renderGrid({ rows: [images], columnTitles: prompt })]);
}
console.log(`${((Date.now() - started) / 1000).toFixed(1)} s`);
await writePng(output, await renderGrid({ rows: pictures, gap: 0 }));
process.exit(0);
