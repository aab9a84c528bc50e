// The curves of a training, from its metrics: what to draw, not how.

import type { PlotOptions, PlotSeries } from "../../images/plot.js";
import type { OUTPUT_NAMES } from "../output-folder.js";
import { lossCurve, smoother } from "./loss-curve.js";
import type { MetricsLine } from "./metrics-file.js";
import type { ValidationReport } from "./step-report.js";

/** One plot. */
export interface RunPlot {
  /** Also its id in a page. */
  name: string;
  /** The file that it is drawn into, if any; it is in the page in any case. */
  file?: keyof typeof OUTPUT_NAMES;
  options: PlotOptions;
}

/** Most points of a curve: more than there are pixels. */
const POINTS = 2000;
const BLUE = "#0072b2";

/** All plots that the metrics have at least two points for. */
export function runPlots(lines: readonly MetricsLine[]): RunPlot[] {
  return [lossPlot, validationPlot, timestepPlot, bandPlot, trainedTimestepPlot, gatesPlot, ratePlot, normPlot]
    .map((make) => make(lines))
    .filter((plot) => plot !== undefined);
}

type Maybe = RunPlot | undefined;

function lossPlot(lines: readonly MetricsLine[]): Maybe {
  const { steps, losses, smoothed, terms } = lossCurve(lines);
  if (steps.length < 2) return undefined;
  const series: PlotSeries[] = [
    { label: "each step", x: steps, y: losses, faint: true, color: BLUE },
    { label: "smoothed", x: steps, y: smoothed, color: BLUE },
    // A single term is the loss itself.
    ...(terms.size > 1 ? [...terms].map(([label, y]) => ({ label, x: steps.slice(-y.length), y })) : []),
  ];
  return plot("loss", "lossPlot", { title: "Training loss", xLabel: "step", yLabel: "loss", series });
}

function validationPlot(lines: readonly MetricsLine[]): Maybe {
  const validated = validations(lines);
  if (validated.length < 2) return undefined;
  const series = [{ label: "", x: validated.map(({ step }) => step), y: validated.map(({ loss }) => loss) }];
  const title = "Validation loss: error of the predicted noise on images that are not trained on";
  return plot("validation", "validationPlot", { title, xLabel: "step", yLabel: "loss", series });
}

/** The first validation and the last. */
function timestepPlot(lines: readonly MetricsLine[]): Maybe {
  const validated = validations(lines);
  const [first, last] = [validated[0], validated.at(-1)];
  if (!first || !last || first === last || last.byTimestep.length < 2) return undefined;
  const series = [first, last].map(({ step, byTimestep }) => ({
    label: `step ${step}`,
    x: byTimestep.map(({ from, to }) => (from + to) / 2),
    y: byTimestep.map(({ error }) => error),
  }));
  return plot("by-timestep", undefined, {
    title: "Validation loss by timestep",
    ...{ xLabel: "timestep (the highest is noise alone)", yLabel: "loss", yScale: "log", series },
  });
}

function bandPlot(lines: readonly MetricsLine[]): Maybe {
  const validated = validations(lines);
  if (validated.length < 2) return undefined;
  const x = validated.map(({ step }) => step);
  const bands = Object.keys(validated[0]!.byBand);
  const series = bands.map((band) => ({
    label: `${band} frequencies`,
    x,
    y: validated.map(({ byBand }) => byBand[band] ?? 0),
  }));
  return plot("by-band", undefined, {
    title: "Validation loss by spatial frequency: the bands add up to it",
    ...{ kind: "area", xLabel: "step", yLabel: "loss", series },
  });
}

/** Losses of single images, smoothed within equal parts of the timesteps. */
function trainedTimestepPlot(lines: readonly MetricsLine[]): Maybe {
  const samples = lines.flatMap(({ step, timesteps = [], sampleLosses = [] }) =>
    sampleLosses.flatMap((loss, i) => (timesteps[i] === undefined ? [] : [{ step, timestep: timesteps[i], loss }])),
  );
  if (samples.length < 2) return undefined;
  const parts = 4;
  const total = Math.max(...samples.map(({ timestep }) => timestep)) + 1;
  const series: PlotSeries[] = [];
  for (let part = 0; part < parts; part++) {
    const inside = samples.filter(({ timestep }) => Math.floor((timestep * parts) / total) === part);
    const smooth = smoother();
    const edge = (index: number) => Math.ceil((index * total) / parts);
    if (inside.length < 2) continue;
    series.push({
      label: `timesteps ${edge(part)} to ${edge(part + 1) - 1}`,
      x: inside.map(({ step }) => step),
      y: inside.map(({ loss }) => smooth(loss)),
    });
  }
  if (series.length === 0) return undefined;
  const title = "Training loss by timestep, smoothed";
  return plot("trained-timesteps", undefined, { title, xLabel: "step", yLabel: "loss", yScale: "log", series });
}

/** The mean over the timesteps, expert by expert. */
function gatesPlot(lines: readonly MetricsLine[]): Maybe {
  const told = lines.flatMap(({ step, gates }) => (gates && gates.length > 0 ? [{ step, gates }] : []));
  if (told.length < 2) return undefined;
  const experts = told[0]!.gates[0]!.gates.length;
  const series = Array.from({ length: experts }, (_, expert) => ({
    label: `expert ${expert + 1}`,
    x: told.map(({ step }) => step),
    y: told.map(({ gates }) => gates.reduce((sum, each) => sum + (each.gates[expert] ?? 0), 0) / gates.length),
  }));
  const title = "The router's gates, means over timesteps";
  return plot("gates", "gatesPlot", { title, kind: "area", xLabel: "step", yLabel: "gate", yRange: [0, 1], series });
}

function ratePlot(lines: readonly MetricsLine[]): Maybe {
  return plainPlot(lines, "learningRate", "learning-rate", "Learning rate", "learningRatePlot");
}

function normPlot(lines: readonly MetricsLine[]): Maybe {
  return plainPlot(lines, "gradientNorm", "gradient-norm", "Norm of all gradients, before clipping");
}

function plainPlot(
  lines: readonly MetricsLine[],
  field: "learningRate" | "gradientNorm",
  name: string,
  title: string,
  file?: RunPlot["file"],
): Maybe {
  const known = lines.filter((line) => Number.isFinite(line[field]));
  if (known.length < 2) return undefined;
  const series = [{ label: "", x: known.map(({ step }) => step), y: known.map((line) => line[field]!) }];
  return plot(name, file, { title, xLabel: "step", series });
}

const validations = (lines: readonly MetricsLine[]): ({ step: number } & ValidationReport)[] =>
  lines.flatMap(({ step, validation }) => (validation ? [{ step, ...validation }] : []));

function plot(name: string, file: RunPlot["file"], options: PlotOptions): RunPlot {
  const series = options.series.map((one) => ({ ...one, ...thinned(one) }));
  return { name, ...(file && { file }), options: { ...options, id: name, series } };
}

/** Every n-th point, and the last. */
function thinned({ x, y }: PlotSeries): { x: number[]; y: number[] } {
  const every = Math.ceil(x.length / POINTS);
  const keep = (_: number, i: number) => i % every === 0 || i === x.length - 1;
  return { x: Array.from(x).filter(keep), y: Array.from(y).filter(keep) };
}
