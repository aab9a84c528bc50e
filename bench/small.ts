// The small end: at the embedded model's size overheads rule. How many steps a second does the trainer make, how much of
// the time is spent inside ONNX Runtime, and what does PyTorch make of the same step?

import { fileURLToPath } from "node:url";
import { formatTable } from "../src/cli/format.js";
import { demoConfig } from "../src/demo/run-demo.js";
import { type BaselineMode, type BaselineSummary, measureBaseline, summarizeBaseline } from "./baseline.js";
import { machineRates } from "./machine.js";
import type { ModelTask, TrainResult } from "./measured-part.js";
import { measurePart } from "./measured-process.js";
import { environment, measureStep, prepareStep, type StepSummary, summarizeStep, warnOfLoad } from "./prepared-step.js";
import { rooflineSeconds } from "./roofline.js";
import { formatMemory, formatPercent, formatRatio, formatSeconds } from "./statistics.js";

/** Latent side and tokens of the embedded model. */
const LATENT_SIZE = 16;
const TOKENS = 24;

/** What to measure. */
export interface SmallOptions {
  batchSize: number;
  threads: number;
  runs: number;
  rounds: number;
  baseline?: { python: string; modes: readonly BaselineMode[]; timeoutSeconds: number };
}

/** What was measured; the names are those of the JSON file. */
export interface SmallReport {
  /** The trainer's: data, noise, optimizer and log are all in it. */
  stepsPerSecond: number;
  /** Share of the trainer's time inside ONNX Runtime. */
  onnxShare: number;
  stepSeconds: number;
  rooflineSeconds: number;
  step: StepSummary;
  baseline?: BaselineSummary;
  [detail: string]: unknown;
}

/** Measures the trainer, the bare step and the baseline, in turns. */
export async function measureSmall({ batchSize, threads, runs, rounds, baseline }: SmallOptions): Promise<SmallReport> {
  warnOfLoad();
  const machine = environment();
  const prepared = await prepareStep({
    model: fileURLToPath(new URL("../assets/icons", import.meta.url)),
    config: demoConfig(),
    shape: { batchSize, latentHeight: LATENT_SIZE, latentWidth: LATENT_SIZE, tokens: TOKENS },
  });
  try {
    const train: TrainResult[] = [];
    const steps = [];
    const baselines = new Map<BaselineMode, Awaited<ReturnType<typeof measureBaseline>>[]>();
    const task: ModelTask = { part: "train", model: prepared.model, inputs: prepared.inputs, threads, runs };
    for (let round = 0; round < rounds; round++) {
      console.error(`round ${round + 1} of ${rounds} …`);
      train.push((await measurePart<TrainResult>(task)).result);
      steps.push(await measureStep(prepared, { threads, runs }));
      for (const mode of baseline?.modes ?? []) {
        const measured = await measureBaseline(mode, prepared, { ...baseline!, threads, runs });
        baselines.set(mode, [...(baselines.get(mode) ?? []), measured]);
      }
    }
    const rates = await machineRates(threads, {
      cases: [
        { kind: "gemm", size: 2048, from: 2048, to: 2048 },
        { kind: "conv", size: 32, from: 128, to: 128 },
      ],
    });
    const sum = (pick: (result: TrainResult) => number) => train.reduce((total, result) => total + pick(result), 0);
    const seconds = sum((result) => result.seconds);
    const step = summarizeStep(steps);
    const summaries = [...baselines].map(([mode, measured]) => summarizeBaseline(mode, measured));
    summaries.sort((a, b) => a.stepSeconds - b.stepSeconds);
    return {
      stepsPerSecond: sum((result) => result.steps) / seconds,
      onnxShare: sum((result) => result.onnxSeconds) / seconds,
      stepSeconds: step.stepSeconds,
      rooflineSeconds: rooflineSeconds(prepared.flops, rates),
      step,
      train,
      batchSize,
      threads,
      flops: prepared.flops,
      rates,
      environment: machine,
      baseline: summaries[0],
      peer: summaries[0],
      baselines: summaries,
    };
  } finally {
    prepared.dispose();
  }
}

/** The report as lines for the terminal. */
export function smallTable(report: SmallReport): string[] {
  const { step, baseline } = report;
  const lines = formatTable([
    ["", "measured"],
    ["trainer", `${report.stepsPerSecond.toPrecision(3)} steps/s`],
    ["of it inside ONNX Runtime", formatPercent(report.onnxShare)],
    ["step alone", formatSeconds(step.stepSeconds)],
    ["step over the roofline", formatRatio(step.stepSeconds / report.rooflineSeconds)],
    ["anonymous memory", formatMemory(step.anonymousBytes)],
  ]);
  if (!baseline) return lines;
  const perSecond = 1 / baseline.stepSeconds;
  return [
    ...lines,
    "",
    `baseline (torch ${baseline.versions.torch}, ${baseline.mode}): ${perSecond.toPrecision(3)} steps/s; ` +
      `the trainer makes ${formatRatio(report.stepsPerSecond / perSecond)} times as many`,
  ];
}
