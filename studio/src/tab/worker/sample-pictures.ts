// Pictures along a training, each with how the adapter was mixed while it was drawn: in the places where the command line
// has them.

import type { StableDiffusionPipeline } from "../../../../src/pipelines/stable-diffusion/stable-diffusion-pipeline.js";
import { PROMPT_FILE, routeFile, stepName } from "../../../../src/training/output-names.js";
import type { SavedModel } from "../../../../src/training/saved-model.js";
import { findFile, makeFolder, writeFile } from "../files.js";
import { RUN_FILES } from "../runs.js";
import type { TabValues } from "./tab-options.js";

/** Draws the prompts of a training. */
export class SamplePictures {
  constructor(
    private readonly pipeline: StableDiffusionPipeline,
    private readonly run: FileSystemDirectoryHandle,
    private readonly values: TabValues,
    private readonly signal: AbortSignal,
  ) {}

  /** Pictures that are drawn at once. */
  get count(): number {
    return (this.values.validationPrompts ?? []).length * this.values.numValidationImages;
  }

  /** Steps between drawings. */
  get every(): number {
    return this.values.validateEvery ?? Math.ceil(this.values.steps / 4);
  }

  isDue(step: number): boolean {
    return this.count > 0 && (step % this.every === 0 || step === this.values.steps);
  }

  /** What the model draws without the adapter, which is not there yet. */
  async drawWithout(): Promise<void> {
    await this.drawAll("without");
  }

  /** What it draws with the adapter as it would be saved now. */
  async draw(step: number, model: SavedModel): Promise<void> {
    model.useIn(this.pipeline);
    await this.drawAll(stepName(step));
  }

  private async drawAll(name: string): Promise<void> {
    const {
      validationPrompts = [],
      numValidationImages,
      seed,
      resolution,
      validationSteps,
      validationGuidanceScale,
    } = this.values;
    for (const prompt of validationPrompts) {
      const folder = await this.folderOf(prompt);
      for (let i = 0; i < numValidationImages; i++) {
        const file = `${name}${i === 0 ? "" : `-${i + 1}`}.png`;
        const { images, route } = await this.pipeline.generate({
          ...{ prompt, seed: seed + i, width: resolution, height: resolution, signal: this.signal },
          ...(validationSteps !== undefined && { steps: validationSteps }),
          ...(validationGuidanceScale !== undefined && { guidanceScale: validationGuidanceScale }),
        });
        if (route) await writeFile(folder, routeFile(file), JSON.stringify({ ...route, weights: undefined }));
        await writeFile(folder, file, await images[0]!.toBlob());
      }
    }
  }

  /** Named as the command line names it: by what the pictures depend on. */
  private async folderOf(prompt: string): Promise<FileSystemDirectoryHandle> {
    const { seed, resolution: size, validationSteps: steps, validationGuidanceScale: guidanceScale } = this.values;
    const key = new TextEncoder().encode(JSON.stringify([prompt, seed, size, { steps, guidanceScale }]));
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", key));
    const hash = Array.from(digest.subarray(0, 4), (byte) => byte.toString(16).padStart(2, "0")).join("");
    const folder = await makeFolder(this.run, RUN_FILES.pictures, `prompt-${hash}`);
    if (!(await findFile(folder, PROMPT_FILE))) {
      await writeFile(folder, PROMPT_FILE, `${JSON.stringify({ prompt, seed, size })}\n`);
    }
    return folder;
  }
}
