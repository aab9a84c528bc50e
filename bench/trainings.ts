// What frozen weights in few bits cost an adapter: the embedded model is trained as in the demo, but shorter, in every type and over
// several seeds, and the error of held-out drawings is compared.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { formatTable } from "../src/cli/format.js";
import { EMBEDDED_MODEL, HELD_OUT_SHARE, knownNames } from "../src/demo/index.js";
import { demoConfig } from "../src/demo/run-demo.js";
import { createObjective } from "../src/diffusion/index.js";
import { FeRAModel, StableDiffusionPipeline } from "../src/index.js";
import type { WeightType } from "../src/models/index.js";
import { encodeDataset } from "../src/training/encode-dataset.js";
import { noisePredictionError } from "../src/training/evaluation.js";
import { fineTune } from "../src/training/fine-tune.js";
import { openDataset } from "../src/training/index.js";
import { environment } from "./prepared-step.js";

/** Noise and timesteps of the held-out drawings: the same for all. */
const EVALUATION_SEED = 0;

/** What to measure. */
export interface TrainingsOptions {
  dtypes: readonly WeightType[];
  seeds: number;
  steps: number;
  threads: number;
}

/** What was measured; the names are those of the JSON file. */
export interface TrainingsReport {
  dtypes: Record<string, TypeReport>;
  [detail: string]: unknown;
}

/** Mean squared errors of the predicted noise on held-out drawings. */
interface TypeReport {
  /** The base model's, in this type. */
  base: number;
  /** After training, by seed. */
  trained: number[];
  mean: number;
  /** Over seeds, of a sample. */
  deviation: number;
  /** What the same adapters are worth on weights of the first type: what training lost, without what this type costs in use. */
  onFirst: { trained: number[]; mean: number; deviation: number };
}

/** Trains with every type and seed, seed by seed, so that a drifting machine treats all types alike. */
export async function measureTrainings(options: TrainingsOptions): Promise<TrainingsReport> {
  const { dtypes, seeds, steps, threads } = options;
  const machine = environment();
  const names = await knownNames(EMBEDDED_MODEL);
  const reference = await StableDiffusionPipeline.fromPretrained(EMBEDDED_MODEL, { dtype: dtypes[0], threads });
  const bases = new Map<WeightType, number>();
  const errors = new Map(dtypes.map((dtype) => [dtype, { own: [] as number[], onFirst: [] as number[] }] as const));
  for (let seed = 0; seed < seeds; seed++) {
    for (const dtype of dtypes) {
      const pipeline = await StableDiffusionPipeline.fromPretrained(EMBEDDED_MODEL, { dtype, threads });
      const data = { size: pipeline.defaultSize, names, validationSplit: HELD_OUT_SHARE };
      const [train, heldOut] = await Promise.all(
        (["train", "heldOut"] as const).map((split) =>
          openDataset("icons:fluent-emoji-high-contrast", { ...data, split }),
        ),
      );
      const encoded = await encodeDataset(pipeline, heldOut!);
      const evaluation = { objective: createObjective(pipeline.schedulerConfig), seed: EVALUATION_SEED };
      if (!bases.has(dtype)) bases.set(dtype, (await noisePredictionError(pipeline.unet, encoded, evaluation)).error);
      const errorOnReference = async (adapter: string) => {
        const model = new FeRAModel(reference.unet, demoConfig());
        await model.loadAdapters(adapter);
        return (await noisePredictionError(model, encoded, evaluation)).error;
      };
      const output = await mkdtemp(join(tmpdir(), "fera-trainings-"));
      try {
        const { model, adapter } = await fineTune({
          ...{ pipeline, dataset: train!, config: demoConfig(), output, steps, seed },
          ...{ batchSize: 8, learningRate: 1.5e-3, schedule: "cosine", warmup: Math.floor(steps / 10), ema: 0.99 },
          ...{ timestepSampling: "stratified", timestepShift: 3 },
        });
        const { error } = await noisePredictionError(model, encoded, evaluation);
        const elsewhere = dtype === dtypes[0] ? error : await errorOnReference(adapter);
        errors.get(dtype)!.own.push(error);
        errors.get(dtype)!.onFirst.push(elsewhere);
        const told = [bases.get(dtype)!, error, elsewhere].map((value) => value.toFixed(5));
        console.error(`seed ${seed}, ${dtype}: ${told[0]} → ${told[1]}, with ${dtypes[0]} weights ${told[2]}`);
      } finally {
        await rm(output, { recursive: true, force: true });
        await pipeline.release();
      }
    }
  }
  await reference.release();
  const reports = dtypes.map((dtype) => {
    const { own, onFirst } = errors.get(dtype)!;
    return [dtype, { base: bases.get(dtype)!, ...summary(own), onFirst: summary(onFirst) }] as const;
  });
  return { dtypes: Object.fromEntries(reports), seeds, steps, threads, environment: machine };
}

function summary(trained: number[]) {
  const mean = trained.reduce((sum, error) => sum + error, 0) / trained.length;
  const squares = trained.reduce((sum, error) => sum + (error - mean) ** 2, 0);
  return { trained, mean, deviation: Math.sqrt(squares / (trained.length - 1)) };
}

/** The report as lines for the terminal: how far each type's adapters are from the first's, in standard deviations of these. */
export function trainingsTable({ dtypes }: TrainingsReport): string[] {
  const [first] = Object.values(dtypes);
  return formatTable([
    ["frozen weights", "base", "trained", "over seeds", "used with the first's weights", "over seeds", "in deviations"],
    ...Object.entries(dtypes).map(([name, { base, mean, deviation, onFirst }]) => [
      name,
      base.toFixed(5),
      mean.toFixed(5),
      `± ${deviation.toFixed(5)}`,
      onFirst.mean.toFixed(5),
      `± ${onFirst.deviation.toFixed(5)}`,
      ((onFirst.mean - first!.mean) / first!.deviation).toFixed(2),
    ]),
  ]);
}
