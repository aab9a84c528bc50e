// The plots of the study's page.

import type { RgbImage } from "../images/pixels.js";
import { type PlotSeries, renderPlot } from "../images/plot.js";
import { type Compared, HELD_OUT_ERROR, type MethodRuns } from "./comparisons.js";
import { BASELINE, METHODS, methodNamed } from "./methods.js";
import type { RunRecord } from "./records.js";
import type { Comparison } from "./report-groups.js";
import type { SameRateComparison } from "./report-same-rate.js";
import { titleOf } from "./report-tables.js";
import { excludesZero } from "./statistics.js";

/** A picture beside the page. */
export interface EvidencePlot {
  file: string;
  title: string;
  picture: RgbImage;
}

/** Half the height of an estimate's mark, in rows. */
const MARK = 0.18;
/** Whose gates are drawn. */
const ROUTED = "fera-plain";

/**
 * Those that the runs suffice for.
 *
 * @param main - The main part's comparison.
 */
export async function evidencePlots(
  main: Comparison | undefined,
  sameRate: SameRateComparison,
): Promise<EvidencePlot[]> {
  if (!main) return [];
  const { rows, baseline } = main;
  // All weights have thirteen times the parameters, and differ by so much that nothing else could be told apart.
  const trained = rows.filter(({ row }) => row !== BASELINE && methodNamed(row, METHODS).kind === "adapter");
  const tuned = "Held-out error against LoRA's in percent, each at its tuned rate; left of zero is better";
  const same = "Held-out error against LoRA's in percent, both at one rate; left of zero is better";
  const compared = main.cells.filter((cell) => trained.some(({ row }) => row === cell.row));
  const plots = [
    await differencesPlot("differences.png", tuned, compared),
    await differencesPlot("differences-same-rate.png", same, sameRate.cells),
    await profilePlot(trained, baseline),
    await gatesPlot(rows),
  ];
  return plots.filter((plot) => plot !== undefined);
}

/** Estimates and intervals, corrected together with all measures, as in the page's table. */
async function differencesPlot(
  file: string,
  title: string,
  cells: readonly Compared[],
): Promise<EvidencePlot | undefined> {
  const differences = cells.flatMap(({ row, metric, interval }) =>
    metric === HELD_OUT_ERROR && interval?.corrected ? [{ row, ...interval, corrected: interval.corrected }] : [],
  );
  if (differences.length === 0) return undefined;
  const count = differences.length;
  const series = differences.flatMap(({ corrected, estimate }, i): PlotSeries[] => {
    const color = excludesZero(corrected) ? "#d55e00" : "#0072b2";
    const y = count - i;
    return [
      { label: "", x: [...corrected], y: [y, y], color },
      { label: "", x: [estimate, estimate], y: [y - MARK, y + MARK], color },
    ];
  });
  const reach = 1.05 * Math.max(...differences.flatMap(({ corrected }) => corrected.map(Math.abs)));
  const picture = await renderPlot({
    ...{ title, xLabel: "percent", series: [zeroLine(0, count + 1), ...series], height: 120 + 34 * Math.max(count, 2) },
    ...{ xRange: [-reach, reach], yRange: [0.4, count + 0.6], width: 860 },
    yTicks: differences.map(({ row }, i) => ({ value: count - i, label: titleOf(row) })),
  });
  return { file, title, picture };
}

async function profilePlot(
  trained: readonly MethodRuns[],
  baseline: readonly RunRecord[],
): Promise<EvidencePlot | undefined> {
  if (trained.length === 0) return undefined;
  const profile = (own: readonly RunRecord[]) => {
    const parts = own[0]!.heldOut!.byTimestep;
    return parts.map(({ from, to }, i) => ({
      middle: (from + to) / 2,
      error: own.reduce((sum, { heldOut }) => sum + heldOut!.byTimestep[i]!.error, 0) / own.length,
    }));
  };
  const of = profile(baseline);
  const series = trained.map(({ row, records: own }): PlotSeries => {
    const mine = profile(own);
    const change = mine.map(({ error }, i) => 100 * (error / of[i]!.error - 1));
    return { label: titleOf(row), x: mine.map(({ middle }) => middle), y: change };
  });
  const title = "Held-out error against LoRA's in percent, by timestep (noise on the right)";
  const picture = await renderPlot({ title, xLabel: "timestep", yLabel: "percent", series, height: 480 });
  return { file: "error-by-timestep.png", title, picture };
}

async function gatesPlot(rows: readonly MethodRuns[]): Promise<EvidencePlot | undefined> {
  const [first] = rows.find(({ row }) => row === ROUTED)?.records ?? [];
  if (!first?.gates) return undefined;
  const { meanGates } = first.gates;
  const series = meanGates[0]!.gates.map(
    (_, expert): PlotSeries => ({
      label: `expert ${expert + 1}`,
      x: meanGates.map(({ timestep }) => timestep),
      y: meanGates.map(({ gates }) => gates[expert]!),
    }),
  );
  const title = `Mean gates over timesteps, ${titleOf(ROUTED)}, one run`;
  const picture = await renderPlot({ ...{ title, series, xLabel: "timestep" }, yRange: [0, 1] });
  return { file: "gates.png", title, picture };
}

const zeroLine = (from: number, to: number): PlotSeries => ({
  ...{ label: "", x: [0, 0], y: [from, to], color: "#888", faint: true },
});
