// How do time and memory grow with batch, resolution, rank and experts, and is that what the counts say?
//
// Expected time: the counted operations, at the rate of the reference setting, which runs again before every other one, since
// a shared machine's speed drifts. Expected anonymous memory: the reference's, plus the difference of the values that must be
// alive at once and of what is held for every trained value.

import { readFileSync } from "node:fs";
import { freemem } from "node:os";
import { formatTable } from "../src/cli/format.js";
import { renderGrid } from "../src/images/grid.js";
import { writePng } from "../src/images/image-file.js";
import { renderPlot } from "../src/images/plot.js";
import {
  environment,
  measureStep,
  prepareStep,
  type StepSettings,
  type StepSummary,
  summarizeStep,
  warnOfLoad,
} from "./prepared-step.js";
import { formatMemory, formatPercent, formatSeconds, median } from "./statistics.js";

/** What is varied. */
export const AXES = ["batch", "latent", "rank", "experts"] as const;

export type Axis = (typeof AXES)[number];

/** Which values of which axis; all else stays at `reference`. */
export interface ScaleOptions {
  reference: StepSettings;
  values: Partial<Record<Axis, readonly number[]>>;
  threads: number;
  runs: number;
}

/** One setting, measured and expected. */
export interface ScalePoint {
  axis: Axis;
  value: number;
  /** Of the reference, just before. */
  referenceSeconds: number;
  expectedSeconds: number;
  expectedBytes: number;
  /** Absent where the setting was left out for want of memory. */
  stepSeconds?: number;
  /** Of that, outside ONNX Runtime: the optimizer, and what goes in and comes out. */
  outsideSeconds?: number;
  anonymousBytes?: number;
  secondsPerSample?: number;
}

/** What was measured. */
export interface ScaleReport {
  reference: { stepSeconds: number; anonymousBytes: number | undefined; shape: StepSettings["shape"] };
  points: ScalePoint[];
  environment: ReturnType<typeof environment>;
}

/** Share of the free memory that a setting may be expected to need. */
const USABLE_SHARE = 0.9;
/**
 * Beside the graph's own values: a trained value, its copy for the worker, its gradient out of ONNX Runtime, and AdamW's two
 * moments, four bytes each.
 */
const BYTES_PER_TRAINED = 20;

/** Measures every setting in a process of its own, and the reference before each. */
export async function measureScale({ reference, values, threads, runs }: ScaleOptions): Promise<ScaleReport> {
  warnOfLoad();
  const machine = environment();
  const first = await prepareStep(reference);
  const measureReference = async () => summarizeStep([await measureStep(first, { threads, runs })]);
  const points: ScalePoint[] = [];
  const references: StepSummary[] = [];
  try {
    for (const axis of AXES) {
      for (const value of values[axis] ?? []) {
        console.error(`${axis} ${value} …`);
        const before = await measureReference();
        references.push(before);
        const setting = await prepareStep(vary(reference, axis, value));
        const expectedBytes =
          (before.anonymousBytes ?? 0) +
          (setting.liveBytes - first.liveBytes) +
          BYTES_PER_TRAINED * (setting.trained - first.trained);
        const point: ScalePoint = {
          axis,
          value,
          referenceSeconds: before.stepSeconds,
          expectedSeconds: (before.stepSeconds * setting.flops.total) / first.flops.total,
          expectedBytes,
        };
        const isReference = key(setting) === key(first);
        if (isReference || expectedBytes < USABLE_SHARE * availableBytes()) {
          const { stepSeconds, onnxShare, anonymousBytes } = isReference
            ? before
            : summarizeStep([await measureStep(setting, { threads, runs })]);
          point.stepSeconds = stepSeconds;
          point.outsideSeconds = stepSeconds * (1 - onnxShare);
          point.anonymousBytes = anonymousBytes;
          point.secondsPerSample = stepSeconds / setting.shape.batchSize;
        }
        setting.dispose();
        points.push(point);
      }
    }
  } finally {
    first.dispose();
  }
  const memory = references.map(({ anonymousBytes }) => anonymousBytes).filter((bytes) => bytes !== undefined);
  return {
    reference: {
      stepSeconds: median(references.map(({ stepSeconds }) => stepSeconds)),
      anonymousBytes: memory.length > 0 ? median(memory) : undefined,
      shape: reference.shape,
    },
    points,
    environment: machine,
  };
}

/** The report as lines for the terminal. */
export function scaleTable({ points }: ScaleReport): string[] {
  const deviation = (measured: number, expected: number) => {
    const share = measured / expected - 1;
    return `${share < 0 ? "−" : "+"}${formatPercent(Math.abs(share))}`;
  };
  return formatTable(
    [
      ["", "", "step", "expected", "off by", "outside", "per sample", "reference", "anonymous", "expected", "off by"],
      ...points.map((point) => {
        const { stepSeconds, anonymousBytes, expectedSeconds, expectedBytes, secondsPerSample, outsideSeconds } = point;
        return [
          point.axis,
          String(point.value),
          stepSeconds === undefined ? "no memory" : formatSeconds(stepSeconds),
          formatSeconds(expectedSeconds),
          stepSeconds === undefined ? "" : deviation(stepSeconds, expectedSeconds),
          outsideSeconds === undefined ? "" : formatSeconds(outsideSeconds),
          secondsPerSample === undefined ? "" : formatSeconds(secondsPerSample),
          formatSeconds(point.referenceSeconds),
          anonymousBytes === undefined ? "" : formatMemory(anonymousBytes),
          formatMemory(expectedBytes),
          anonymousBytes === undefined ? "" : deviation(anonymousBytes, expectedBytes),
        ];
      }),
    ],
    1,
  );
}

/** Draws time and memory over every axis, measured and expected; times as if the reference had always taken its median. */
export async function plotScale(path: string, { points, reference }: ScaleReport): Promise<void> {
  const steadied = (seconds: number, point: ScalePoint) => (seconds * reference.stepSeconds) / point.referenceSeconds;
  const rows = [];
  for (const axis of AXES) {
    const own = points.filter((point) => point.axis === axis);
    if (own.length < 2) continue;
    const x = own.map(({ value }) => value);
    // From zero, so that the machine's noise is not magnified.
    const draw = (yLabel: string, measured: (number | undefined)[], expected: number[]) =>
      renderPlot({
        width: 480,
        height: 300,
        xLabel: axis,
        yLabel,
        yRange: [0, 1.05 * Math.max(...expected, ...measured.map((value) => value ?? 0))],
        series: [
          { label: "measured", x, y: measured.map((value) => value ?? Number.NaN) },
          { label: "expected", x, y: expected, faint: true },
        ],
      });
    rows.push([
      await draw(
        "seconds per step",
        own.map((point) => point.stepSeconds && steadied(point.stepSeconds, point)),
        own.map((point) => steadied(point.expectedSeconds, point)),
      ),
      await draw(
        "anonymous memory, GB",
        own.map(({ anonymousBytes }) => anonymousBytes && anonymousBytes / 1e9),
        own.map(({ expectedBytes }) => expectedBytes / 1e9),
      ),
    ]);
  }
  if (rows.length === 0) throw new Error("plot: needs an axis with at least two values.");
  await writePng(path, await renderGrid({ rows, scale: 1 }));
}

const key = ({ shape, config }: StepSettings): string => JSON.stringify([shape, config]);

function vary({ model, config, shape }: StepSettings, axis: Axis, value: number): StepSettings {
  if (axis === "batch") return { model, config, shape: { ...shape, batchSize: value } };
  if (axis === "latent") return { model, config, shape: { ...shape, latentHeight: value, latentWidth: value } };
  return { model, shape, config: config.with(axis === "rank" ? { rank: value } : { numExperts: value }) };
}

/** Memory that can be had, dropping the page cache included. */
function availableBytes(): number {
  try {
    const kilobytes = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync("/proc/meminfo", "utf8"))?.[1];
    return kilobytes === undefined ? freemem() : Number(kilobytes) * 1024;
  } catch {
    return freemem();
  }
}
