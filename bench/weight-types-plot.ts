// Error of the adapters' gradients against the time of a step, for every way to keep frozen weights: a plot for each report of `sd15`.

import { readFile } from "node:fs/promises";
import { renderGrid } from "../src/images/grid.js";
import { writePng } from "../src/images/image-file.js";
import { type PlotSeries, renderPlot } from "../src/images/plot.js";
import type { Sd15Report } from "./sd15.js";

/** Ends of the logarithmic axis: what float16 rounds, and gradients of nothing. */
const ERRORS = [1e-4, 2] as const;

/** @param titles - Of the reports' plots, from left to right. */
export async function plotWeightTypes(path: string, reports: readonly string[], titles: readonly string[]) {
  const plots = [];
  for (const [i, file] of reports.entries()) {
    const { dtypes, baseline } = JSON.parse(await readFile(file, "utf8")) as Sd15Report;
    const times = Object.values(dtypes).map(({ stepSeconds }) => stepSeconds);
    const width = 1.1 * Math.max(...times, baseline?.stepSeconds ?? 0);
    const series = Object.entries(dtypes).map(([name, { stepSeconds, gradientError }]) =>
      // float32 has no error to show: a line at its time.
      gradientError === undefined ? line(name, stepSeconds) : cross(name, stepSeconds, gradientError, width),
    );
    if (baseline) series.push({ ...line(`PyTorch, ${baseline.mode}`, baseline.stepSeconds), faint: true });
    plots.push(
      await renderPlot({
        ...{ width: 480, height: 340, series, yScale: "log", xRange: [0, width], yRange: ERRORS },
        ...{ title: titles[i], xLabel: "seconds a step", yLabel: "gradients off by, relative L2" },
      }),
    );
  }
  await writePng(path, await renderGrid({ rows: [plots], scale: 1 }));
}

const line = (label: string, x: number): PlotSeries => ({ label, x: [x, x], y: [...ERRORS] });

function cross(label: string, x: number, y: number, width: number): PlotSeries {
  const arm = 0.012 * width;
  const factor = 1.25;
  return { label, x: [x - arm, x + arm, Number.NaN, x, x], y: [y, y, Number.NaN, y / factor, y * factor] };
}
