// How long does FeRA's step take at Stable Diffusion 1.5's size, how close is that to what the machine can do, how much
// memory does it need, and how does PyTorch do on the same step?

import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { formatTable } from "../src/cli/format.js";
import { UNet2DConditionModel, type WeightType } from "../src/models/index.js";
import {
  type BaselineMode,
  type BaselineResult,
  type BaselineSummary,
  measureBaseline,
  summarizeBaseline,
} from "./baseline.js";
import { compareGradients, type GradientDifference, readGradients } from "./gradient-cosine.js";
import { bestRates, type MachineCase, type MachineResult, machineRates } from "./machine.js";
import type { InferenceResult, ModelTask, StepResult } from "./measured-part.js";
import { type Measured, measurePart } from "./measured-process.js";
import type { PhaseMemory } from "./memory.js";
import {
  environment,
  measureStep,
  type PreparedStep,
  prepareStep,
  type StepSettings,
  type StepSummary,
  summarizeStep,
  warnOfLoad,
} from "./prepared-step.js";
import { type Profile, profileTables, takeProfile } from "./profile-summary.js";
import { rooflineSeconds } from "./roofline.js";
import { BENCH_FOLDER } from "./sd15-weights.js";
import { formatMemory, formatPercent, formatRatio, formatSeconds, formatSpread, median } from "./statistics.js";

/** What to measure. */
export interface Sd15Options extends StepSettings {
  threads: number;
  /** Steady steps per process. */
  runs: number;
  /** Processes per side, in turns. */
  rounds: number;
  baseline?: { python: string; modes: readonly BaselineMode[]; timeoutSeconds: number };
  /** How frozen weights are kept; what is not said of one of them is the first's. */
  dtypes: readonly WeightType[];
  profile: boolean;
  stepOptions?: Record<string, unknown>;
  /** Other shapes for the machine's rates. */
  machineCases?: readonly MachineCase[];
}

/** What was measured; the names are those of the JSON file. */
export interface Sd15Report {
  stepSeconds: number;
  baseSeconds: number;
  adaptedSeconds: number;
  routeSeconds: number;
  /** What adapters add to a forward pass, as a share of the base's; the median over all turns. */
  adaptersShare: number;
  rooflineSeconds: number;
  gemmGflops: number;
  convGflops: number;
  anonymousBytes: number | undefined;
  peakBytes: number;
  createSeconds: number;
  step: StepSummary;
  memory: Record<string, PhaseMemory>;
  dtypes: Partial<Record<WeightType, DtypeSummary>>;
  /** The same as `baseline`. */
  peer?: Sd15Report["baseline"];
  baseline?: BaselineSummary & { modes: Partial<Record<BaselineMode, BaselineSummary | { failed: string }>> };
  profile?: Profile;
  [detail: string]: unknown;
}

/** One way to keep frozen weights. */
export interface DtypeSummary extends StepSummary, Partial<GradientDifference> {
  baseSeconds: number;
  baseCpuSeconds: number;
}

/** Turns of the base and the adapted forward pass: their difference is a few percent, less than this machine's noise. */
const INFERENCE_TURNS = 9;
/** Of the other ways to keep frozen weights, which are compared by whole passes. */
const FEWER_TURNS = 3;
/** First, settling and steady step. */
const PROFILED_RUNS = 3;

/** Measures everything, the baseline's processes and ours in turns. */
export async function measureSd15(options: Sd15Options): Promise<Sd15Report> {
  const { threads, runs, stepOptions } = options;
  warnOfLoad();
  const before = environment();
  const prepared = await prepareStep(options);
  try {
    // What is converted once, is converted now.
    for (const dtype of options.dtypes) {
      await UNet2DConditionModel.fromPretrained(prepared.model, { subfolder: "unet", dtype });
    }
    const ratesBefore = await rates(options);
    const rounds = new Map<WeightType, Measured<StepResult>[]>(options.dtypes.map((dtype) => [dtype, []]));
    const baselineRounds = new Map<BaselineMode, Measured<BaselineResult>[] | { failed: string }>();
    for (let round = 1; round <= options.rounds; round++) {
      for (const [dtype, measured] of rounds) {
        progress(`round ${round} of ${options.rounds}: step, ${dtype}`);
        measured.push(await measureStep(prepared, { threads, runs, stepOptions, dtype }));
      }
      for (const mode of options.baseline?.modes ?? []) {
        progress(`round ${round} of ${options.rounds}: baseline, ${mode}`);
        await addBaselineRound(baselineRounds, mode, prepared, options);
      }
    }
    const inferences = new Map<WeightType, InferenceResult>();
    for (const dtype of options.dtypes) {
      progress(`inference, ${dtype}`);
      const task: ModelTask = {
        part: "inference",
        model: prepared.model,
        inputs: prepared.inputs,
        threads,
        dtype,
        runs: dtype === options.dtypes[0] ? INFERENCE_TURNS : FEWER_TURNS,
      };
      inferences.set(dtype, (await measurePart<InferenceResult>(task)).result);
    }
    const differences = await gradientDifferences(prepared, options);
    const [first] = options.dtypes as [WeightType, ...WeightType[]];
    const inference = inferences.get(first)!;
    const profile = options.profile ? await profileStep(prepared, options) : undefined;
    const machine = bestRates(ratesBefore, await rates(options));
    const step = summarizeStep(rounds.get(first)!);
    const baseline = summarizeBaselines(baselineRounds);
    return {
      stepSeconds: step.stepSeconds,
      baseSeconds: median(inference.base),
      adaptedSeconds: median(inference.adapted),
      routeSeconds: median(inference.route),
      adaptersShare: median(inference.adapted.map((seconds, turn) => seconds / inference.base[turn]! - 1)),
      rooflineSeconds: rooflineSeconds(prepared.flops, machine),
      gemmGflops: machine.gemmGflops,
      convGflops: machine.convGflops,
      anonymousBytes: step.anonymousBytes,
      peakBytes: step.peakBytes,
      createSeconds: step.createSeconds,
      shape: prepared.shape,
      threads,
      runs,
      rounds: options.rounds,
      config: prepared.config,
      adaptedLayers: prepared.adaptedLayers,
      stepOptions,
      flops: prepared.flops,
      liveBytes: prepared.liveBytes,
      step,
      memory: rounds.get(first)![0]!.memory,
      dtypes: Object.fromEntries(
        options.dtypes.map((dtype) => [
          dtype,
          {
            ...summarizeStep(rounds.get(dtype)!),
            baseSeconds: median(inferences.get(dtype)!.base),
            baseCpuSeconds: median(inferences.get(dtype)!.baseCpuSeconds),
            ...differences.get(dtype),
          } satisfies DtypeSummary,
        ]),
      ),
      inference: { base: inference.base, adapted: inference.adapted, route: inference.route },
      machine: { rates: machine.rates, before, after: environment() },
      baseline,
      peer: baseline,
      profile,
    };
  } finally {
    prepared.dispose();
  }
}

/** The report as lines for the terminal. */
export function sd15Table(report: Sd15Report): string[] {
  const { step, baseline } = report;
  const against = (seconds: number, of: number | undefined) => (of === undefined ? "" : formatRatio(seconds / of));
  const lines = formatTable([
    ["", "measured", "spread", "over the roofline", "over the baseline"],
    [
      "step",
      formatSeconds(step.stepSeconds),
      formatSpread(step.samples),
      against(step.stepSeconds, report.rooflineSeconds),
      against(step.stepSeconds, baseline?.stepSeconds),
    ],
    [
      "first step",
      formatSeconds(step.firstStepSeconds),
      "",
      "",
      against(step.firstStepSeconds, baseline?.firstStepSeconds),
    ],
    ["base forward", formatSeconds(report.baseSeconds), "", "", against(report.baseSeconds, baseline?.baseSeconds)],
    ["adapted forward", formatSeconds(report.adaptedSeconds), "", "", ""],
    ["session creation", formatSeconds(report.createSeconds), "", "", ""],
    ["roofline bound", formatSeconds(report.rooflineSeconds), "", "", ""],
    [
      "anonymous memory",
      formatMemory(report.anonymousBytes),
      "",
      "",
      against(report.anonymousBytes ?? 0, baseline?.anonymousBytes),
    ],
    ["peak memory", formatMemory(report.peakBytes), "", "", against(report.peakBytes, baseline?.peakBytes)],
  ]);
  lines.push(
    "",
    `best rates: ${report.gemmGflops.toFixed(0)} GFLOP/s in products, ${report.convGflops.toFixed(0)} in convolutions`,
    `adapters at inference: ${formatPercent(report.adaptersShare)} over the base model; ` +
      `indicator and router alone ${formatPercent(report.routeSeconds / report.baseSeconds)}`,
    `inside ONNX Runtime: ${formatPercent(step.onnxShare)} of the step`,
  );
  if (Object.keys(report.dtypes).length > 1) lines.push("", ...dtypeTable(report));
  if (baseline) lines.push("", ...baselineLines(report, baseline));
  lines.push("", ...memoryTable(report.memory));
  if (report.profile) lines.push("", ...profileTables(report.profile));
  return lines;
}

/** Every way to keep frozen weights, beside the first one and the baseline's fastest mode. */
function dtypeTable({ dtypes, stepSeconds, baseline }: Sd15Report): string[] {
  return formatTable([
    [
      "frozen weights",
      "step",
      "over the first",
      "over the baseline",
      "step, CPU",
      "base forward",
      "base, CPU",
      "anonymous",
      "peak",
      "gradients off by",
      "worst cosine",
      "",
    ],
    ...Object.entries(dtypes).map(([dtype, summary]) => [
      dtype,
      formatSeconds(summary.stepSeconds),
      formatRatio(summary.stepSeconds / stepSeconds),
      baseline ? formatRatio(summary.stepSeconds / baseline.stepSeconds) : "",
      formatSeconds(summary.cpuSeconds),
      formatSeconds(summary.baseSeconds),
      formatSeconds(summary.baseCpuSeconds),
      formatMemory(summary.anonymousBytes),
      formatMemory(summary.peakBytes),
      summary.gradientError?.toExponential(1) ?? "",
      summary.gradientCosine?.toFixed(6) ?? "",
      summary.worstLayer ?? "",
    ]),
  ]);
}

function baselineLines(report: Sd15Report, baseline: NonNullable<Sd15Report["baseline"]>): string[] {
  const versions = Object.entries(baseline.versions).map(([name, version]) => `${name} ${version}`);
  const rows = Object.entries(baseline.modes).map(([mode, summary]) =>
    "failed" in summary
      ? [mode, "failed", "", "", "", "", ""]
      : [
          mode,
          formatSeconds(summary.stepSeconds),
          formatSeconds(summary.cpuSeconds),
          formatSeconds(summary.baseSeconds),
          formatSeconds(summary.baseCpuSeconds),
          formatMemory(summary.anonymousBytes),
          formatMemory(summary.peakBytes),
        ],
  );
  const losses = report.step.losses.map((loss, i) => Math.abs(loss / (baseline.losses[i] ?? loss) - 1));
  return [
    `baseline: ${versions.join(", ")}; compared with its fastest mode, ${baseline.mode}`,
    ...formatTable([["", "step", "step, CPU", "base forward", "base, CPU", "anonymous", "peak"], ...rows]),
    `largest relative difference of the losses: ${Math.max(...losses).toExponential(1)}`,
  ];
}

function memoryTable(memory: Readonly<Record<string, PhaseMemory>>): string[] {
  return formatTable([
    ["most memory while", "anonymous", "file-backed"],
    ...Object.entries(memory).map(([phase, { anonymousBytes, fileBytes }]) => [
      phase,
      formatMemory(anonymousBytes),
      formatMemory(fileBytes),
    ]),
  ]);
}

async function rates({ threads, machineCases }: Sd15Options): Promise<MachineResult> {
  progress("rates of the machine");
  return machineRates(threads, machineCases ? { cases: machineCases } : {});
}

/** A mode that fails once is not tried again, and says why in the report. */
async function addBaselineRound(
  rounds: Map<BaselineMode, Measured<BaselineResult>[] | { failed: string }>,
  mode: BaselineMode,
  prepared: PreparedStep,
  { baseline, threads, runs }: Sd15Options,
): Promise<void> {
  const known = rounds.get(mode) ?? [];
  if (!Array.isArray(known)) return;
  try {
    rounds.set(mode, [...known, await measureBaseline(mode, prepared, { ...baseline!, threads, runs })]);
  } catch (error) {
    const failed = (error as Error).message;
    console.error(`The baseline's mode "${mode}" failed: ${failed}`);
    rounds.set(mode, { failed });
  }
}

function summarizeBaselines(
  rounds: ReadonlyMap<BaselineMode, Measured<BaselineResult>[] | { failed: string }>,
): Sd15Report["baseline"] | undefined {
  const modes: NonNullable<Sd15Report["baseline"]>["modes"] = {};
  let best: BaselineSummary | undefined;
  for (const [mode, measured] of rounds) {
    if (!Array.isArray(measured)) {
      modes[mode] = measured;
      continue;
    }
    const summary = summarizeBaseline(mode, measured);
    modes[mode] = summary;
    if (!best || summary.stepSeconds < best.stepSeconds) best = summary;
  }
  return best && { ...best, modes };
}

async function profileStep(prepared: PreparedStep, { threads, stepOptions }: Sd15Options) {
  progress("profile");
  mkdirSync(BENCH_FOLDER, { recursive: true });
  const profilePrefix = join(BENCH_FOLDER, `profile-${process.pid}`);
  await measureStep(prepared, { threads, runs: 1, stepOptions, profilePrefix });
  return takeProfile(profilePrefix, PROFILED_RUNS);
}

/** How far the adapters' gradients turn away from float32's, which is the first of the types or is measured besides. */
async function gradientDifferences(
  prepared: PreparedStep,
  { dtypes, threads, stepOptions }: Sd15Options,
): Promise<Map<WeightType, GradientDifference>> {
  const differences = new Map<WeightType, GradientDifference>();
  const others = dtypes.filter((dtype) => dtype !== "float32");
  if (others.length === 0) return differences;
  const gradientsOf = async (dtype: WeightType) => {
    progress(`gradients, ${dtype}`);
    const { model, inputs } = prepared;
    const output = join(dirname(inputs), `gradients-${dtype}.safetensors`);
    await measurePart({
      part: "gradients",
      model,
      inputs,
      threads,
      dtype,
      output,
      runs: 1,
      stepOptions,
    } satisfies ModelTask);
    return readGradients(output);
  };
  const exact = await gradientsOf("float32");
  for (const dtype of others) differences.set(dtype, compareGradients(await gradientsOf(dtype), exact));
  return differences;
}

function progress(what: string): void {
  console.error(`[${new Date().toTimeString().slice(0, 8)}] ${what}`);
}
