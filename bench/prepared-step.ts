// One step that is about to be measured: its files, and what is known of it without running it.

import { rmSync } from "node:fs";
import { mkdir, mkdtemp } from "node:fs/promises";
import { availableParallelism, cpus, loadavg } from "node:os";
import { join } from "node:path";
import type { FeRAConfig } from "../src/adapters/index.js";
import { FeRAModel, UNet2DConditionModel } from "../src/index.js";
import type { UNetShape } from "../src/models/unet-2d-condition/unet-2d-condition.js";
import { onnxRuntimeVersion } from "../src/runtime/onnxruntime.js";
import type { ModelTask, StepResult } from "./measured-part.js";
import { type Measured, measurePart } from "./measured-process.js";
import { peakAnonymousBytes } from "./memory.js";
import { countFlops, type Flops, liveBytes, stepGraph } from "./roofline.js";
import { BENCH_FOLDER, readIntoPageCache } from "./sd15-weights.js";
import { median } from "./statistics.js";
import { writeStepInputs } from "./step-inputs.js";

/** A step: of which model, with which adapters, on which batch. */
export interface StepSettings {
  /** A folder with `unet/`. */
  model: string;
  config: FeRAConfig;
  shape: UNetShape;
}

/** Its files and its counts. */
export interface PreparedStep extends StepSettings {
  /** Batch and adapters. */
  inputs: string;
  flops: Flops;
  /** Values that must be alive at once, without weights. */
  liveBytes: number;
  adaptedLayers: number;
  /** Number of trained values. */
  trained: number;
  /** Removes the files. */
  dispose(): void;
}

/** Counts the step and writes its inputs; brings the weights into the page cache. */
export async function prepareStep(settings: StepSettings): Promise<PreparedStep> {
  const { model: folder, config, shape } = settings;
  const model = await UNet2DConditionModel.fromPretrained(folder, { subfolder: "unet" });
  const graph = stepGraph(model, config, shape);
  const { layers, parameters } = new FeRAModel(model, config);
  await mkdir(BENCH_FOLDER, { recursive: true });
  const temporary = await mkdtemp(join(BENCH_FOLDER, "step-"));
  const dispose = () => rmSync(temporary, { recursive: true, force: true });
  process.once("exit", dispose);
  const inputs = join(temporary, "inputs.safetensors");
  await writeStepInputs(inputs, model, config, shape);
  await readIntoPageCache(join(folder, "unet", "diffusion_pytorch_model.safetensors"));
  return {
    ...settings,
    inputs,
    flops: countFlops(graph),
    liveBytes: liveBytes(graph),
    adaptedLayers: layers.length,
    trained: [...parameters.values()].reduce((sum, { size }) => sum + size, 0),
    dispose() {
      process.off("exit", dispose);
      dispose();
    },
  };
}

/** Medians and peaks over the rounds of a step. */
export interface StepSummary {
  stepSeconds: number;
  /** Time that the processors worked in a step: what other programs took is not in it. */
  cpuSeconds: number;
  firstStepSeconds: number;
  createSeconds: number;
  sessionSeconds: number;
  /** Share of the step's time inside ONNX Runtime. */
  onnxShare: number;
  anonymousBytes: number | undefined;
  peakBytes: number;
  /** Of the first round, before each step. */
  losses: number[];
  /** Every step of every round. */
  samples: number[];
}

/** Measures the step once, in a process of its own. */
export function measureStep(
  prepared: PreparedStep,
  options: Pick<ModelTask, "threads" | "runs" | "stepOptions" | "profilePrefix" | "dtype">,
): Promise<Measured<StepResult>> {
  const task: ModelTask = { part: "step", model: prepared.model, inputs: prepared.inputs, ...options };
  return measurePart<StepResult>(task);
}

/** Adds rounds up. */
export function summarizeStep(rounds: readonly Measured<StepResult>[]): StepSummary {
  const results = rounds.map(({ result }) => result);
  const samples = results.flatMap(({ seconds }) => seconds);
  const onnx = results.flatMap(({ onnxSeconds }) => onnxSeconds);
  const anonymous = rounds.map(({ memory }) => peakAnonymousBytes(memory)).filter((bytes) => bytes !== undefined);
  const medianOf = (key: "firstSeconds" | "createSeconds" | "sessionSeconds") =>
    median(results.map((result) => result[key]));
  return {
    stepSeconds: median(samples),
    cpuSeconds: median(results.flatMap(({ cpuSeconds }) => cpuSeconds)),
    firstStepSeconds: medianOf("firstSeconds"),
    createSeconds: medianOf("createSeconds"),
    sessionSeconds: medianOf("sessionSeconds"),
    onnxShare: onnx.reduce((sum, value) => sum + value, 0) / samples.reduce((sum, value) => sum + value, 0),
    anonymousBytes: anonymous.length > 0 ? Math.max(...anonymous) : undefined,
    peakBytes: Math.max(...results.map(({ peakBytes }) => peakBytes)),
    losses: results[0]!.losses,
    samples,
  };
}

/** What the figures were measured on. */
export function environment(): { cpu: string; cores: number; load: number; versions: Record<string, string> } {
  return {
    cpu: cpus()[0]?.model ?? "unknown",
    cores: availableParallelism(),
    load: loadavg()[0]!,
    versions: { node: process.versions.node, onnxruntime: onnxRuntimeVersion },
  };
}

/** Says on standard error that other work is running. */
export function warnOfLoad(): void {
  const [load] = loadavg() as [number];
  if (load > 0.5) {
    console.error(`The machine is not idle (load average ${load.toFixed(1)}): other work is in these figures.`);
  }
}
