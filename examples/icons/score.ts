// Draws trained names once each, with a fixed seed, and reports how often the nearest of all true drawings is the right one
// (nearest.ts says how that is measured). By chance it would be one in as many as there are names.
// Usage: npx tsx examples/icons/score.ts [PIPELINE_FOLDER] [EVERY] [PICTURE.png]: every EVERY-th name; all by default.

import { drawingFeatures, nearestOf, ownNearestShare } from "../../src/demo/nearest.js";
import { renderGrid } from "../../src/images/grid.js";
import { StableDiffusionPipeline, type Tensor, writePng } from "../../src/index.js";
import { captionOf, rasterizeIcons } from "../../src/training/data/icons.js";
import { trainingNames } from "./names.js";
import { IMAGE_SIZE, SAMPLING } from "./recipe.js";

const [folder = "assets/icons", everyText = "1", picture] = process.argv.slice(2);
const BATCH = 16;

const names = trainingNames();
const rgb = await rasterizeIcons("noto", names, IMAGE_SIZE);
const pixels = 3 * IMAGE_SIZE * IMAGE_SIZE;
const truthOf = (index: number) => ({
  width: IMAGE_SIZE,
  height: IMAGE_SIZE,
  data: rgb.subarray(index * pixels, (index + 1) * pixels),
});
const truths = names.map((_, index) => drawingFeatures(truthOf(index)));

const asked = names.map((_, index) => index).filter((index) => index % Number(everyText) === 0);
const pipeline = await StableDiffusionPipeline.fromPretrained(folder);
const drawn: Tensor<"float32">[] = [];
for (let first = 0; first < asked.length; first += BATCH) {
  const prompt = asked.slice(first, first + BATCH).map((index) => captionOf(names[index]!));
  const { images } = await pipeline.generate({ prompt, ...SAMPLING });
  drawn.push(...images);
}
const features = drawn.map(drawingFeatures);
const share = ownNearestShare(features, truths, asked);
console.log(`${drawn.length} names drawn, nearest to their own: ${(100 * share).toFixed(1)} %`);
const missed = asked.flatMap((index, i) => {
  const nearest = nearestOf(features[i]!, truths);
  return nearest === index ? [] : [`${names[index]} (${names[nearest]})`];
});
console.log(`Others, and what they are nearest to: ${missed.join(", ")}`);
if (picture !== undefined) {
  const across = 12;
  const cells = await Promise.all(
    drawn.map((image, i) => renderGrid({ rows: [[image]], columnTitles: [captionOf(names[asked[i]!]!)] })),
  );
  const rows = Array.from({ length: Math.ceil(cells.length / across) }, (_, row) =>
    cells.slice(row * across, (row + 1) * across),
  );
  await writePng(picture, await renderGrid({ rows, gap: 0 }));
}
process.exit(0);
