// One run from its spec to its record: opens the data, trains, measures. What it needs is in the spec, so that runs can be
// spread over processes in any order.

import { mkdtemp, rm, stat } from "node:fs/promises";
import { cpus, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { AdapterModel, adapterConfigFromJSON, FeRAConfig, FeRAModel } from "../adapters/index.js";
import { createObjective, type Denoiser, type Objective } from "../diffusion/index.js";
import { quoted } from "../errors.js";
import type { AnyPipeline } from "../pipelines/index.js";
import { Generator } from "../tensor/random.js";
import { ParameterAverage } from "../training/average.js";
import type { StepCompiler } from "../training/bucketed-train-step.js";
import type { DatasetRows } from "../training/cache/dataset-rows.js";
import { DiffusionBatches } from "../training/diffusion-batches.js";
import { currentEngine } from "../training/engine.js";
import { createOptimizer, type ImageDataset, Trainer } from "../training/index.js";
import { rateFactors } from "../training/parameter-groups.js";
import { WholeDenoiser } from "../training/whole-denoiser.js";
import { median } from "./averages.js";
import { analyzeGates } from "./gate-analysis.js";
import { driftBetween, type MeasuredErrors, measureDrawings, measureErrors } from "./measures.js";
import type { RunRecord, RunSpec } from "./records.js";
import { RunContext } from "./run-context.js";

const TIMESTEPS_PER_IMAGE = 8;
/** Predictions of each drawing of the base's own style, on which forgetting is measured. */
const OWN_TIMESTEPS = 4;
const CAPTION_DROPOUT = 0.1;
const AVERAGE_DECAY = 0.99;
const WARMUP_STEPS = 20;

/** What a run may be told beside its spec; changes no number but by rounding. */
export interface ExecutionOptions {
  /** What is shared with other runs, one after the other; without it the run has a process's memory to itself. */
  context?: RunContext | undefined;
  threads?: number | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: (phase: string, done: number, of: number) => void;
}

/**
 * Does a run.
 *
 * @throws {FeraError} If the model or its data cannot be used; what the signal aborts rejects with its reason.
 */
export async function executeRun(spec: RunSpec, options: ExecutionOptions = {}): Promise<RunRecord> {
  const context = options.context ?? new RunContext(options.threads);
  let isClean = false;
  try {
    const record = await executeWith(context, spec, options);
    // Training all weights has changed the model that is loaded.
    isClean = options.context !== undefined && (spec.adapter !== undefined || spec.steps === 0);
    return record;
  } finally {
    if (!isClean) await context.forget();
  }
}

async function executeWith(context: RunContext, spec: RunSpec, options: ExecutionOptions): Promise<RunRecord> {
  const { signal, onProgress } = options;
  const startedAt = performance.now();
  const { settings, seed } = spec;
  const pipeline = await context.pipelineOf(spec);
  const data = await context.dataOf(spec);
  const objective = createObjective(pipeline.schedulerConfig);
  const rowsOf = (dataset: ImageDataset): Promise<DatasetRows> => context.rowsOf(spec, dataset, { signal, onProgress });
  const isMeasured = spec.measures !== "speed";
  const own = isMeasured ? await rowsOf(data.own) : undefined;
  // Another stream than the training's, a new one for each seed, the same for all methods.
  const noise = { objective, seed: 100_000 + seed, ...(signal && { signal }) };
  const measureOwn = (model: Pick<Denoiser, "predict">, rows: DatasetRows) =>
    measureErrors(model, rows, { ...noise, timestepsPerImage: OWN_TIMESTEPS });
  const base = own && (await context.baseErrors(spec, () => measureOwn(pipeline.denoiser, own)));
  await pipeline.denoiser.release();

  const trained = await train(spec, pipeline, () => rowsOf(data.train), objective, options);
  const peakMemoryBytes = options.context ? undefined : process.resourceUsage().maxRSS * 1024;
  const measured = own && base ? await measure(own, base) : undefined;
  async function measure(own: DatasetRows, base: MeasuredErrors): Promise<Partial<RunRecord>> {
    onProgress?.("measuring", 0, 1);
    const heldOut = await rowsOf(data.heldOut);
    const errors = await measureErrors(trained.model, heldOut, { ...noise, timestepsPerImage: TIMESTEPS_PER_IMAGE });
    const after = await measureOwn(trained.model, own);
    const { model } = trained;
    // Asked for of whole styles only.
    const isAnalyzed = model instanceof FeRAModel && spec.task.kind === "style";
    const gates = isAnalyzed ? await analyzeGates(model, heldOut, noise) : undefined;
    await (model as { release?: () => Promise<void> }).release?.();
    await pipeline.denoiser.release();
    const drawn = spec.measures === "all" ? await drawWith(trained.model) : undefined;
    const { rows, residuals: _, ...parts } = errors;
    return {
      heldOut: {
        ...parts,
        names: rows.map((error, i) => ({ name: data.heldOut.name(i), error, drawing: drawn?.names[i] })),
      },
      own: ownResult(after, base),
      ...(drawn && { drawings: { nearestShare: drawn.nearestShare, diversity: drawn.diversity } }),
      ...(gates && { gates }),
    };
  }
  async function drawWith(model: Pick<Denoiser, "predict">) {
    onProgress?.("drawing", 0, data.heldOut.size);
    if (model instanceof AdapterModel) await pipeline.useAdapters(model);
    try {
      return await measureDrawings(pipeline, data.heldOut, {
        ...{ seed, steps: settings.drawingSteps, ...(signal && { signal }) },
      });
    } finally {
      pipeline.unloadAdapters();
      await pipeline.denoiser.release();
    }
  }
  return {
    ...{ spec, parameters: trained.parameters, trainImages: data.train.size, loss: trained.loss },
    ...{
      secondsPerStep: trained.secondsPerStep,
      cpuSecondsPerStep: trained.cpuSecondsPerStep,
      peakMemoryBytes,
      fileBytes: trained.fileBytes,
    },
    ...measured,
    seconds: (performance.now() - startedAt) / 1000,
    finishedAt: new Date().toISOString(),
    machine: { ...machine(), ...currentEngine(pipeline.denoiser.runtime) },
  };
}

const ownResult = (after: MeasuredErrors, base: MeasuredErrors): NonNullable<RunRecord["own"]> => ({
  error: after.error,
  base: base.error,
  drift: driftBetween(after.residuals, base.residuals),
});

/** What a training gave. */
interface Trained
  extends Pick<RunRecord, "parameters" | "loss" | "secondsPerStep" | "cpuSecondsPerStep" | "fileBytes"> {
  model: Pick<Denoiser, "predict">;
}

async function train(
  spec: RunSpec,
  pipeline: AnyPipeline,
  openRows: () => Promise<DatasetRows>,
  objective: Objective,
  options: ExecutionOptions,
): Promise<Trained> {
  const { seed } = spec;
  if (spec.steps === 0) {
    return {
      model: pipeline.denoiser,
      parameters: 0,
      loss: undefined,
      secondsPerStep: undefined,
      fileBytes: undefined,
    };
  }
  const work = await mkdtemp(join(tmpdir(), "fera-evidence-"));
  try {
    if (!spec.adapter) {
      const whole = await WholeDenoiser.of(pipeline.denoiser);
      const result = await trainSteps(spec, whole, pipeline, await openRows(), objective, options, work);
      await whole.apply(result.parameters);
      const bytes = 4 * whole.parameterCount;
      return { model: pipeline.denoiser, parameters: whole.parameterCount, ...result.told, fileBytes: bytes };
    }
    const { type, config: json } = spec.adapter;
    const config = adapterConfigFromJSON(type, json, `run ${quoted(spec.id)}`);
    const model: AdapterModel =
      config instanceof FeRAConfig
        ? new FeRAModel(pipeline.denoiser, config, { seed })
        : await AdapterModel.create(pipeline.denoiser, config, { seed });
    const result = await trainSteps(spec, model, pipeline, await openRows(), objective, options, work);
    for (const [name, { data }] of result.parameters) model.parameters.get(name)!.data.set(data);
    const file = join(work, "adapter.safetensors");
    await model.saveAdapters(file);
    const { size } = await stat(file);
    return { model, parameters: model.parameterCount, ...result.told, fileBytes: size };
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function trainSteps(
  spec: RunSpec,
  compiler: StepCompiler,
  pipeline: AnyPipeline,
  rows: DatasetRows,
  objective: Objective,
  { signal, onProgress }: ExecutionOptions,
  work: string,
) {
  const { steps, seed, learningRate, routerLr = 1, settings } = spec;
  const { batchSize } = settings;
  const optimizer = createOptimizer("adamw", { lr: learningRate, weightDecay: 0.01 });
  const average = new ParameterAverage(compiler.parameters, AVERAGE_DECAY);
  const rateOf = rateFactors(compiler.parameters.keys(), { routerLr });
  const step = await compiler.compileTrainStep({
    ...{ batchSize, optimizer, average, objective, ...rows.latentSize(0) },
    ...(rateOf && { rateOf }),
    tokens: pipeline.captionTokens(""),
  });
  const times: number[] = [];
  const losses: number[] = [];
  const cpuTimes: number[] = [];
  let before: { now: number; cpu: NodeJS.CpuUsage } | undefined;
  try {
    const trainer = new Trainer({
      trainable: step as unknown as ConstructorParameters<typeof Trainer>[0]["trainable"],
      batches: new DiffusionBatches(rows, {
        ...{ batchSize, captionDropout: CAPTION_DROPOUT, objective },
        generator: new Generator(seed),
      }),
      ...{ optimizer, average, steps, output: work, ...(rateOf && { rateOf }), ...(signal && { signal }) },
      schedule: "cosine",
      warmupSteps: Math.min(WARMUP_STEPS, Math.floor(steps / 10)),
      maxGradientNorm: 1,
      onStep: (report) => {
        const now = performance.now();
        if (before !== undefined) {
          const { user, system } = process.cpuUsage(before.cpu);
          times.push((now - before.now) / 1000);
          cpuTimes.push((user + system) / 1e6);
        }
        before = { now, cpu: process.cpuUsage() };
        losses.push(report.loss);
        onProgress?.("training", report.step, steps);
      },
    });
    const { parameters, finished } = await trainer.run();
    if (!finished) signal?.throwIfAborted();
    const last = losses.slice(-50);
    return {
      parameters,
      told: {
        loss: { first: losses[0]!, last: last.reduce((sum, loss) => sum + loss, 0) / last.length },
        secondsPerStep: times.length > 0 ? median(times) : undefined,
        cpuSecondsPerStep: cpuTimes.length > 0 ? median(cpuTimes) : undefined,
      },
    };
  } finally {
    await step.release();
  }
}

/** What the numbers were made on, beside the engine. */
export function machine(): Record<string, string> {
  const [cpu] = cpus();
  return {
    processor: `${cpus().length} × ${cpu?.model.trim() ?? "unknown"}`,
    memory: `${(totalmem() / 2 ** 30).toFixed(0)} GiB`,
    node: process.version,
  };
}
