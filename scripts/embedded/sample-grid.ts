// Draws a grid of samples of the embedded model: names that it was trained on and names that it never saw.
// Usage: npx tsx scripts/embedded/sample-grid.ts PIPELINE_FOLDER OUTPUT.png [GUIDANCE_SCALE]

import { renderGrid } from "../../src/images/grid.js";
import { StableDiffusionPipeline, writePng } from "../../src/index.js";

const [folder = "assets/icons", output = "runs/embedded/samples.png", guidance = "6"] = process.argv.slice(2);

const SEEN = [
  "red apple",
  "green apple",
  "sunflower",
  "blue heart",
  "pizza",
  "fire",
  "snowman",
  "rocket",
  "cat face",
  "tree",
];
const UNSEEN = [
  "purple apple",
  "green fire",
  "blue flower",
  "yellow star",
  "red car",
  "pink cat face",
  "orange circle",
  "black heart",
  "blue bird",
  "golden key",
];

const pipeline = await StableDiffusionPipeline.fromPretrained(folder);
const started = Date.now();
const rows = [];
for (const prompt of [SEEN.slice(0, 5), SEEN.slice(5), UNSEEN.slice(0, 5), UNSEEN.slice(5)]) {
  const { images } = await pipeline.generate({ prompt, steps: 25, guidanceScale: Number(guidance), seed: 7 });
  rows.push({ prompt, images });
}
console.log(`${((Date.now() - started) / 1000).toFixed(1)} s for ${SEEN.length + UNSEEN.length} images`);
const captioned = await Promise.all(
  rows.map(async ({ prompt, images }) => renderGrid({ rows: [images], columnTitles: prompt })),
);
await writePng(output, await renderGrid({ rows: captioned.map((picture) => [picture]), gap: 0 }));
process.exit(0);
