// Pictures along a training, of what would be saved at that step, beside what the model draws without it: drawn as
// `generate` draws them. Node only.

import { createHash } from "node:crypto";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { renderGrid } from "../images/grid.js";
import { readImage, writePng } from "../images/image-file.js";
import type { ImageLike } from "../images/pixels.js";
import type { AnyPipeline, GenerateResult, RoutingTrace } from "../pipelines/index.js";
import type { Scheduler } from "../schedulers/index.js";
import { pathExists, writeFileAtomically } from "../storage/file-access.js";
import { prepareOutputFolder } from "./checkpoint.js";
import { outputPath, PROMPT_FILE, routeFile, stepName, validationPicture } from "./output-folder.js";
import type { SavedModel } from "./saved-model.js";

/** When and how pictures are drawn. */
export interface ValidationOptions {
  validationPrompts?: readonly string[] | undefined;
  /** By default a quarter of all steps; the last step is always drawn. */
  validateEvery?: number | undefined;
  /** Of each prompt, with seeds that count up from `seed`. */
  numValidationImages: number;
  /** Of the sampling; as `generate` by default. */
  validationSteps?: number | undefined;
  validationGuidanceScale?: number | undefined;
  steps: number;
  seed: number;
  /** Side of the pictures in pixels: the training's. */
  size: number;
  output: string;
  /** The pipeline's own by default. */
  scheduler?: Scheduler | undefined;
  signal?: AbortSignal | undefined;
}

/** What was drawn at a step. */
export interface DrawnPictures {
  /** All prompts in one picture. */
  path: string;
  /** By prompt: what the model draws with the adapter, one per seed. */
  images: ReadonlyMap<string, readonly ImageLike[]>;
}

/** In a prompt's folder: what it is drawn without the adapter. */
const WITHOUT = "without";
/** Most steps that the picture of a prompt shows, spread evenly. */
const STEPS_SHOWN = 12;

/** Draws the validation prompts. */
export class ValidationPictures {
  constructor(
    private readonly pipeline: AnyPipeline,
    private readonly model: SavedModel,
    private readonly options: ValidationOptions,
  ) {}

  /** Whether this step is one to draw. */
  isDue(step: number): boolean {
    const { validationPrompts = [], steps } = this.options;
    const every = this.options.validateEvery ?? Math.ceil(steps / 4);
    return validationPrompts.length > 0 && step > 0 && (step % every === 0 || step === steps);
  }

  /** Pictures that one call of {@link draw} makes. */
  get count(): number {
    return (this.options.validationPrompts ?? []).length * this.options.numValidationImages;
  }

  /** Draws what the model makes of the prompts without the adapter, where that is not there yet. @returns Pictures made. */
  async drawWithout(): Promise<number> {
    let drawn = 0;
    this.pipeline.disableAdapters();
    try {
      for (const prompt of this.options.validationPrompts ?? []) {
        for (const seed of this.seeds()) {
          const path = await this.pictureOf(prompt, WITHOUT, seed);
          if (await pathExists(path)) continue;
          await writePng(path, (await this.generate(prompt, seed)).images[0]!);
          drawn++;
        }
      }
    } finally {
      this.pipeline.enableAdapters();
    }
    // The training needs no autoencoder, no text encoder, and the model not alone; their memory is better used.
    if (drawn > 0) await this.pipeline.release();
    return drawn;
  }

  /** Draws where this step is one to draw. @returns Undefined where it is none, or the signal came first. */
  async draw(step: number): Promise<DrawnPictures | undefined> {
    const { validationPrompts = [], output, signal } = this.options;
    if (!this.isDue(step)) return undefined;
    const images = new Map<string, ImageLike[]>();
    try {
      await this.drawWithout();
      this.model.useIn(this.pipeline);
      for (const prompt of validationPrompts) {
        const drawn: ImageLike[] = [];
        for (const seed of this.seeds()) {
          const { images: made, route } = await this.generate(prompt, seed);
          const picture = await this.pictureOf(prompt, stepName(step), seed);
          await writePng(picture, made[0]!);
          if (route) await writeRoute(picture, route);
          drawn.push(made[0]!);
        }
        images.set(prompt, drawn);
      }
    } catch (error) {
      // What is not drawn now is drawn when the training goes on.
      if (signal?.aborted && error === signal.reason) return undefined;
      throw error;
    }
    const path = validationPicture(output, step);
    await writePng(path, await this.overview(step, images));
    for (const prompt of images.keys()) await this.drawStrip(prompt);
    await this.pipeline.release();
    return { path, images };
  }

  /** As {@link draw}, where a run was cut off before its pictures were complete. */
  async drawMissing(step: number): Promise<DrawnPictures | undefined> {
    return (await pathExists(validationPicture(this.options.output, step))) ? undefined : this.draw(step);
  }

  /** The prompts of one step, a column each; without the adapter above, with it below. */
  private async overview(step: number, images: ReadonlyMap<string, readonly ImageLike[]>) {
    const without: ImageLike[] = [];
    for (const prompt of images.keys()) {
      for (const seed of this.seeds()) without.push(await readImage(await this.pictureOf(prompt, WITHOUT, seed)));
    }
    return renderGrid({
      rows: [without, [...images.values()].flat()],
      rowLabels: ["without adapter", `step ${step}`],
      columnTitles: [...images].flatMap(([prompt, each]) => each.map(() => prompt)),
    });
  }

  /** One prompt over the steps: without the adapter, then step after step; a row for each seed. */
  private async drawStrip(prompt: string): Promise<void> {
    const folder = this.folderOf(prompt);
    const names = (await readdir(folder)).filter((name) => /^step-\d+\.png$/.test(name)).sort();
    const shown = thinned(names, STEPS_SHOWN).map((name) => name.replace(/\.png$/, ""));
    const rows: (ImageLike | undefined)[][] = [];
    for (const seed of this.seeds()) {
      const row: (ImageLike | undefined)[] = [];
      for (const name of [WITHOUT, ...shown]) {
        const path = await this.pictureOf(prompt, name, seed);
        row.push((await pathExists(path)) ? await readImage(path) : undefined);
      }
      rows.push(row);
    }
    const columnTitles = ["without adapter", ...shown.map((name) => `step ${Number(name.slice("step-".length))}`)];
    await writePng(`${folder}.png`, await renderGrid({ title: prompt, rows, columnTitles }));
  }

  /** One by one: as `generate` with this adapter, prompt and seed draws them. */
  private async generate(prompt: string, seed: number): Promise<GenerateResult> {
    const { size, scheduler, signal, validationSteps: steps, validationGuidanceScale: guidanceScale } = this.options;
    return this.pipeline.generate({
      prompt,
      seed,
      width: size,
      height: size,
      scheduler,
      ...(steps !== undefined && { steps }),
      ...(guidanceScale !== undefined && { guidanceScale }),
      ...(signal && { signal }),
    });
  }

  private seeds(): number[] {
    const { seed, numValidationImages } = this.options;
    return Array.from({ length: numValidationImages }, (_, i) => seed + i);
  }

  private async pictureOf(prompt: string, name: string, seed: number): Promise<string> {
    const folder = this.folderOf(prompt);
    const about = join(folder, PROMPT_FILE);
    if (!(await pathExists(about))) {
      await prepareOutputFolder(folder);
      const { size, seed: first } = this.options;
      const text = JSON.stringify({ prompt, seed: first, size });
      await writeFileAtomically(about, [new TextEncoder().encode(`${text}\n`)]);
    }
    const number = seed - this.options.seed;
    return join(folder, `${name}${number === 0 ? "" : `-${number + 1}`}.png`);
  }

  /** Named by what the pictures depend on, so that a resumed run with other prompts does not take them for its own. */
  private folderOf(prompt: string): string {
    const { output, seed, size, validationSteps, validationGuidanceScale } = this.options;
    // What is left out leaves no trace: JSON drops it.
    const sampling = { steps: validationSteps, guidanceScale: validationGuidanceScale };
    const key = createHash("sha256")
      .update(JSON.stringify([prompt, seed, size, sampling]))
      .digest("hex");
    return join(outputPath(output, "validation"), `prompt-${key.slice(0, 8)}`);
  }
}

/** Keeps how the adapter was mixed along the sampling, beside the picture. */
async function writeRoute(picture: string, { timesteps, energies, gates }: RoutingTrace): Promise<void> {
  const short = (table: number[][][]) => table.map((rows) => rows.map((row) => row.map((value) => +value.toFixed(6))));
  const text = JSON.stringify({ timesteps, energies: short(energies), gates: short(gates) });
  await writeFileAtomically(routeFile(picture), [new TextEncoder().encode(`${text}\n`)]);
}

/** At most `count` of them, evenly, the first and the last always. */
function thinned<T>(items: readonly T[], count: number): T[] {
  if (items.length <= count) return [...items];
  return Array.from({ length: count }, (_, i) => items[Math.round((i * (items.length - 1)) / (count - 1))]!);
}
