// What a run tells a model beside its text: classes, and the guidance that a distilled model takes as an input.

import type { Conditioning } from "../diffusion/index.js";
import { ConfigError, ShapeError } from "../errors.js";
import { repeatRows } from "../tensor/rows.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import type { GenerateOptions } from "./generate-options.js";
import { guidanceScaleEmbedding } from "./guidance.js";

/** What of a run's plan the conditioning follows. */
export interface ConditionedRun {
  prompts: readonly string[];
  numImages: number;
  guidanceScale: number;
}

/**
 * The same with and without the prompt, one row per image.
 *
 * @param takes - The names of the model's conditioning, each with the shape of one row.
 * @throws {ConfigError} If the model needs classes that are not given, or takes none that are.
 * @throws {ShapeError} If they are neither one for all images, nor one per prompt, nor one per image.
 */
export function modelConditioning(
  options: Pick<GenerateOptions, "classLabels" | "timestepCond">,
  { prompts, numImages, guidanceScale }: ConditionedRun,
  takes: ReadonlyMap<string, readonly number[]>,
): Conditioning {
  const images = prompts.length * numImages;
  const rowsFor = (name: string, given: Tensor): Tensor => {
    const rows = given.shape[0] ?? 0;
    if (rows === images) return given;
    if (rows === prompts.length || rows === 1) return repeatRows(given, images / rows);
    const counts = [...new Set([1, prompts.length, images])].join(" or ");
    throw new ShapeError(`generate: ${name} must have ${counts} rows; got [${given.shape.join(",")}].`);
  };
  const conditioning: Record<string, Tensor> = {};
  const { classLabels, timestepCond } = options;
  checkTaken("classLabels", classLabels, takes);
  checkTaken("timestepCond", timestepCond, takes);
  if (takes.has("classLabels")) {
    if (classLabels === undefined) {
      throw new ConfigError("generate: this model was trained with classes; give classLabels, one per prompt.");
    }
    conditioning.classLabels = rowsFor("classLabels", labelTensor(classLabels));
  }
  if (takes.has("guidance")) conditioning.guidance = tensor(new Float32Array(images).fill(guidanceScale), [images]);
  const [features] = takes.get("timestepCond") ?? [];
  if (features !== undefined) {
    conditioning.timestepCond = timestepCond
      ? rowsFor("timestepCond", timestepCond)
      : guidanceScaleEmbedding(guidanceScale, features, images);
  }
  return conditioning;
}

function checkTaken(name: string, given: unknown, takes: ReadonlyMap<string, unknown>): void {
  if (given === undefined || takes.has(name)) return;
  throw new ConfigError(`generate: this model takes no ${name}; leave it out.`);
}

function labelTensor(given: Tensor | number | readonly number[]): Tensor {
  const numbers = typeof given === "number" ? [given] : given;
  if (!Array.isArray(numbers)) return numbers as Tensor;
  if (numbers.length > 0 && numbers.every(Number.isFinite)) return tensor(Float32Array.from(numbers));
  throw new ConfigError(`generate: classLabels must be numbers, one per prompt; got ${JSON.stringify(given)}.`);
}
