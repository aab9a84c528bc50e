// Draws a grid of samples of the embedded model: names that it was trained on and prompts that it never saw.
// Usage: npx tsx examples/icons/sample-grid.ts [PIPELINE_FOLDER] [OUTPUT.png]

import { renderGrid } from "../../src/images/grid.js";
import { StableDiffusionPipeline, writePng } from "../../src/index.js";
import { captionsOf, trainingNames } from "./names.js";
import { SAMPLING } from "./recipe.js";

const [folder = "assets/icons", output = "runs/embedded/samples.png"] = process.argv.slice(2);

const SEEN = [
  ["red apple", "banana", "watermelon", "carrot", "pizza", "hamburger"],
  ["cat face", "dog", "frog", "owl", "penguin", "fish"],
  ["sunflower", "cactus", "tree", "mushroom", "rainbow", "snowman"],
  ["rocket", "sailboat", "car", "bus", "bicycle", "airplane"],
  ["guitar", "umbrella", "key", "scissors", "hammer", "light bulb"],
  ["house", "castle", "soccer ball", "grinning face", "ghost", "robot"],
];
const UNSEEN = [
  ["purple apple", "blue car", "green cat face", "yellow star", "pink umbrella", "golden key"],
  ["orange umbrella", "brown balloon", "blue fish", "red bird", "green balloon", "white rose"],
];

const trained = new Set(trainingNames().flatMap(captionsOf));
for (const prompt of SEEN.flat()) if (!trained.has(prompt)) throw new Error(`"${prompt}" was not trained on`);
for (const prompt of UNSEEN.flat()) if (trained.has(prompt)) console.log(`"${prompt}" was trained on`);

const pipeline = await StableDiffusionPipeline.fromPretrained(folder);
const started = Date.now();
const rows = [];
for (const prompts of [...SEEN, ...UNSEEN]) {
  const { images } = await pipeline.generate({ prompt: prompts, ...SAMPLING });
  rows.push(await Promise.all(images.map((image, i) => renderGrid({ rows: [[image]], columnTitles: [prompts[i]!] }))));
}
console.log(`${((Date.now() - started) / 1000).toFixed(1)} s`);
await writePng(output, await renderGrid({ rows, gap: 0 }));
process.exit(0);
