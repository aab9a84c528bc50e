// What the watch view draws, out of lines of metrics. Pure.

import type { MetricsLine } from "../../../../src/studio/protocol.js";
import { lossCurve, smoother } from "../../../../src/training/report/loss-curve.js";
import type { GatesAtStep } from "../../../../src/training/report/step-report.js";
import type { Curve } from "../../charts/chart-data.js";
import { seriesToken } from "../../charts/scheme.js";

/** A run that is drawn. */
export interface DrawnRun {
  id: string;
  /** Token of its colour where several are compared. */
  color: string;
  lines: readonly MetricsLine[];
}

/** Parts that the timesteps are cut into. */
const TIMESTEP_PARTS = 4;
/** Parts of a profile over the timesteps. */
const PROFILE_PARTS = 20;

/** Losses: one run with each step behind the smoothed curve and its terms, several smoothed alone. */
export function lossCurves(runs: readonly DrawnRun[], smoothing: number): Curve[] {
  const [first] = runs;
  if (runs.length !== 1 || !first) {
    return runs.map(({ id, color, lines }) => {
      const { steps, smoothed } = lossCurve(lines, smoothing);
      return { label: id, color, x: steps, y: smoothed };
    });
  }
  const { steps, losses, smoothed, terms } = lossCurve(first.lines, smoothing);
  return [
    { label: "each step", color: seriesToken(0), x: steps, y: losses, isFaint: true },
    { label: "loss, smoothed", color: seriesToken(0), x: steps, y: smoothed },
    // A single term is the loss itself.
    ...(terms.size > 1 ? [...terms] : []).map(([label, y], i) => ({
      ...{ label, color: seriesToken(i + 1), isDashed: true, y },
      x: steps.slice(-y.length),
    })),
  ];
}

/** One number of every step. */
export function plainCurves(runs: readonly DrawnRun[], label: string, of: (line: MetricsLine) => number | undefined) {
  return runs.map(({ id, color, lines }): Curve => {
    const known = lines.filter((line) => Number.isFinite(of(line)));
    const [x, y] = [known.map(({ step }) => step), known.map((line) => of(line)!)];
    return { label: runs.length === 1 ? label : id, color: runs.length === 1 ? seriesToken(0) : color, x, y };
  });
}

/** Losses of single images, smoothed, within equal parts of the timesteps. */
export function lossByTimestep({ lines }: DrawnRun, smoothing: number): Curve[] {
  const total = timestepsOf(lines);
  return Array.from({ length: TIMESTEP_PARTS }, (_, part): Curve => {
    const edge = (index: number) => Math.ceil((index * total) / TIMESTEP_PARTS);
    const smooth = smoother(smoothing);
    const curve = { x: [] as number[], y: [] as number[] };
    for (const { step, timesteps = [], sampleLosses = [] } of lines) {
      const inside = sampleLosses.filter((_, i) => {
        const timestep = timesteps[i];
        return timestep !== undefined && timestep >= edge(part) && timestep < edge(part + 1);
      });
      if (inside.length === 0) continue;
      curve.x.push(step);
      curve.y.push(smooth(inside.reduce((sum, loss) => sum + loss, 0) / inside.length));
    }
    return { label: `${edge(part)}–${edge(part + 1) - 1}`, color: seriesToken(part), ...curve };
  }).filter(({ x }) => x.length > 0);
}

/** Mean loss over the timesteps, of the newest steps. */
export function timestepProfile(runs: readonly DrawnRun[], newest: number): Curve[] {
  const total = Math.max(...runs.map(({ lines }) => timestepsOf(lines)), 1);
  return runs
    .map(({ id, color, lines }): Curve => {
      const sums = Array.from({ length: PROFILE_PARTS }, () => ({ sum: 0, count: 0 }));
      for (const { timesteps = [], sampleLosses = [] } of lines.slice(-newest)) {
        for (const [i, loss] of sampleLosses.entries()) {
          const part = sums[Math.floor(((timesteps[i] ?? -1) * PROFILE_PARTS) / total)];
          if (!part) continue;
          part.sum += loss;
          part.count++;
        }
      }
      const known = sums.flatMap(({ sum, count }, i) =>
        count > 0 ? [{ x: Math.round(((i + 0.5) * total) / PROFILE_PARTS), y: sum / count }] : [],
      );
      return {
        label: runs.length === 1 ? "mean loss" : id,
        color: runs.length === 1 ? seriesToken(0) : color,
        x: known.map(({ x }) => x),
        y: known.map(({ y }) => y),
      };
    })
    .filter(({ x }) => x.length > 0);
}

/** Trainings know a thousand timesteps but for few models: as many as were seen, rounded up. */
function timestepsOf(lines: readonly MetricsLine[]): number {
  let highest = 0;
  for (const { timesteps = [] } of lines) for (const each of timesteps) highest = Math.max(highest, each);
  return highest < 1000 ? 1000 : highest + 1;
}

const validations = (lines: readonly MetricsLine[]) =>
  lines.flatMap(({ step, validation }) => (validation ? [{ step, ...validation }] : []));

/** Validation loss by step. */
export function validationCurves(runs: readonly DrawnRun[]): Curve[] {
  return plainCurves(runs, "validation loss", ({ validation }) => validation?.loss).filter(({ x }) => x.length > 0);
}

/** Validation loss by step, within parts of the timesteps. */
export function validationByTimestep({ lines }: DrawnRun): Curve[] {
  const validated = validations(lines);
  return (validated[0]?.byTimestep ?? []).map(({ from, to }, i) => ({
    label: `${Math.round(from)}–${Math.round(to) - 1}`,
    color: seriesToken(i),
    isDashed: i >= 6,
    x: validated.map(({ step }) => step),
    y: validated.map(({ byTimestep }) => byTimestep[i]?.error ?? Number.NaN),
  }));
}

/** Validation loss by step, by band of spatial frequency; of several runs compared, in their colours. */
export function validationByBand({ lines }: DrawnRun): Curve[] {
  const validated = validations(lines);
  return Object.keys(validated[0]?.byBand ?? {}).map((band, i) => ({
    label: band,
    color: seriesToken(i),
    x: validated.map(({ step }) => step),
    y: validated.map(({ byBand }) => byBand[band] ?? Number.NaN),
  }));
}

/** The mean over the timesteps, where no single one is asked for. */
export const ALL_TIMESTEPS = -1;

/** Timesteps that the router's gates are told at, along the training. */
export function gateTimesteps({ lines }: DrawnRun): number[] {
  return lines.find(({ gates }) => gates && gates.length > 0)?.gates?.map(({ timestep }) => timestep) ?? [];
}

/** The gates that were told last, at every timestep. */
export function newestGates({ lines }: DrawnRun): readonly GatesAtStep[] {
  return lines.findLast(({ gates }) => gates && gates.length > 0)?.gates ?? [];
}

/** The router's gates by step, expert by expert: at a timestep, or the mean over all. */
export function gateCurves({ lines }: DrawnRun, timestep: number): Curve[] {
  const told = lines.flatMap(({ step, gates = [] }) => {
    const chosen = timestep === ALL_TIMESTEPS ? gates : gates.filter((each) => each.timestep === timestep);
    return chosen.length > 0 ? [{ step, gates: chosen.map((each) => each.gates) }] : [];
  });
  return Array.from({ length: told[0]?.gates[0]?.length ?? 0 }, (_, expert) => ({
    label: `expert ${expert + 1}`,
    color: seriesToken(expert),
    x: told.map(({ step }) => step),
    y: told.map(({ gates }) => gates.reduce((sum, each) => sum + (each[expert] ?? 0), 0) / gates.length),
  }));
}

/** Settings that differ between runs: a row for each, with a value for each run. */
export function settingDifferences(
  runs: readonly { settings: Readonly<Record<string, unknown>> }[],
): { name: string; values: string[] }[] {
  const names = [...new Set(runs.flatMap(({ settings }) => Object.keys(settings)))].sort();
  return names
    .map((name) => ({
      name,
      values: runs.map(({ settings }) => {
        const value = settings[name];
        return value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value);
      }),
    }))
    .filter(({ values }) => new Set(values).size > 1);
}
