// Trains a FeRA adapter on a folder of images and draws a prompt before and after.

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { FeRAConfig, fineTune, openDataset, StableDiffusionPipeline, writePng } from "fera";

const { values } = parseArgs({
  options: {
    data: { type: "string" },
    prompt: { type: "string" },
    output: { type: "string", default: "runs/train-and-draw" },
    model: { type: "string", default: fileURLToPath(new URL("../assets/icons", import.meta.resolve("fera"))) },
    steps: { type: "string", default: "200" },
  },
});
const { data, prompt, output, model } = values;
if (data === undefined || prompt === undefined) {
  console.error(
    'Usage: node train-and-draw.js --data FOLDER --prompt "…" [--output FOLDER] [--model MODEL] [--steps N]',
  );
  process.exit(2);
}

const pipeline = await StableDiffusionPipeline.fromPretrained(model);
const dataset = await openDataset(data, { size: pipeline.defaultSize, split: "train" });
for (const { path, reason } of dataset.skipped) console.warn(`skipped ${path}: ${reason}`);

/** @param {string} name */
async function draw(name) {
  const { images } = await pipeline.generate({ prompt: /** @type {string} */ (prompt), seed: 0 });
  for (const image of images) await writePng(join(output, name), image);
}

const { adapter } = await fineTune({
  pipeline,
  dataset,
  config: new FeRAConfig({ rank: 4, numExperts: 3 }),
  output,
  steps: Number(values.steps),
  batchSize: 2,
  learningRate: 1e-3,
  seed: 0,
  // The first thing after all is known to be in order.
  onPhase: async ({ kind }) => {
    if (kind === "starting") await draw("before.png");
  },
  onStep: ({ step, loss }) => console.log(`step ${step}  loss ${loss.toFixed(4)}`),
});

await pipeline.loadAdapters(adapter);
await draw("after.png");
await pipeline.release();
console.log(`${adapter}, before.png and after.png are in ${output}`);
