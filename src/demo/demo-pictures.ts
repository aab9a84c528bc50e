// The two pictures of the demo: images before and after, and how the routing went along the sampling trajectory.

import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { renderGrid } from "../images/grid.js";
import { readImage, writePng } from "../images/image-file.js";
import type { RgbImage } from "../images/pixels.js";
import { renderPlot } from "../images/plot.js";
import { loadSharp } from "../images/sharp.js";
import type { RoutingTrace } from "../pipelines/index.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import { isPromptFolder, outputPath, PROMPT_FILE } from "../training/output-folder.js";

/** One held-out name: what the base model draws, what the adapted one draws, and the true drawing. */
export interface ComparedImage {
  caption: string;
  base: Tensor<"float32">;
  adapted: Tensor<"float32">;
  truth: { data: Float32Array; size: number };
}

/** Writes one row per name with the columns base, adapted, true target. */
export async function beforeAfterPicture(path: string, rows: readonly ComparedImage[], style: string): Promise<void> {
  const picture = await renderGrid({
    title: `Held-out names, drawn before and after learning “${style}”`,
    columnTitles: ["base", "adapted", "true target"],
    rowLabels: rows.map(({ caption }) => caption),
    rows: rows.map(({ base, adapted, truth }) => [base, adapted, tensor(truth.data, [3, truth.size, truth.size])]),
  });
  await writePng(path, picture);
}

/** Writes one row per prompt: what the model drew before its first step, and then along the training in `output`. */
export async function progressPicture(
  path: string,
  output: string,
  prompts: readonly string[],
  style: string,
): Promise<void> {
  const validation = outputPath(output, "validation");
  const folders = new Map<string, string>();
  for (const name of (await readdir(validation)).filter(isPromptFolder)) {
    const { prompt } = JSON.parse(await readFile(join(validation, name, PROMPT_FILE), "utf8")) as { prompt: string };
    folders.set(prompt, join(validation, name));
  }
  const known = prompts.filter((prompt) => folders.has(prompt));
  const steps = (await readdir(folders.get(known[0]!)!)).filter((name) => /^step-\d+\.png$/.test(name)).sort();
  const rows = known.map((prompt) =>
    Promise.all(["without.png", ...steps].map((name) => readImage(join(folders.get(prompt)!, name)))),
  );
  const picture = await renderGrid({
    title: `Held-out names while the adapter learns “${style}”`,
    columnTitles: ["step 0", ...steps.map((name) => `step ${Number(name.slice("step-".length, -".png".length))}`)],
    rowLabels: known,
    rows: await Promise.all(rows),
  });
  await writePng(path, picture);
}

/** Writes gates and band energies over the timesteps of a run, the mean over its images. */
export async function routingPicture(path: string, route: Omit<RoutingTrace, "weights">): Promise<void> {
  const means = (rows: number[][][]): number[][] => {
    const width = rows[0]?.[0]?.length ?? 0;
    return Array.from({ length: width }, (_, column) =>
      rows.map((images) => images.reduce((sum, image) => sum + image[column]!, 0) / images.length),
    );
  };
  const axis = { xLabel: "timestep (noise on the left)", xRange: [Math.max(...route.timesteps), 0] as const };
  const bands = means(route.energies);
  const energies = await renderPlot({
    ...axis,
    title:
      "What the router sees: noise has most of its energy in fine detail; as the drawing appears, more lies in coarse shapes",
    kind: "area",
    yRange: [0, 1],
    series: bands.map((y, band) => ({
      label: bandName(band, bands.length),
      x: route.timesteps,
      y,
    })),
  });
  const gates = await renderPlot({
    ...axis,
    yRange: [0, 1],
    title:
      "What it does: how much each expert takes part at each noise level; level lines would mean that it does not care",
    series: means(route.gates).map((y, expert) => ({ label: `expert ${expert + 1}`, x: route.timesteps, y })),
  });
  await writePng(path, await stack([energies, gates]));
}

function bandName(band: number, count: number): string {
  if (band === 0) return "lowest band";
  return band === count - 1 ? "highest band" : `band ${band + 1}`;
}

/** Puts pictures under each other. */
async function stack(pictures: readonly RgbImage[]): Promise<RgbImage> {
  const width = Math.max(...pictures.map((picture) => picture.width));
  const height = pictures.reduce((sum, picture) => sum + picture.height, 0);
  let top = 0;
  const layers = pictures.map((picture) => {
    const { width: w, height: h } = picture;
    const layer = {
      input: Buffer.from(picture.data),
      raw: { width: w, height: h, channels: 3 as const },
      left: 0,
      top,
    };
    top += h;
    return layer;
  });
  const sharp = await loadSharp();
  const { data, info } = await sharp({ create: { width, height, channels: 3, background: "white" } })
    .composite(layers)
    .removeAlpha()
    .raw()
    .toBuffer({ resolveWithObject: true });
  return { width: info.width, height: info.height, data: new Uint8Array(data) };
}
