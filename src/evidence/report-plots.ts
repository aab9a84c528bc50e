// The plots of the study's page.

import type { RgbImage } from "../images/pixels.js";
import { type PlotSeries, renderPlot } from "../images/plot.js";
import { compare, METRICS, runsByMethod } from "./comparisons.js";
import { BASELINE, methodNamed } from "./methods.js";
import { ALL_METHODS, type Plan } from "./plan.js";
import type { RunRecord } from "./records.js";
import { excludesZero } from "./statistics.js";
import { TEST_STYLES } from "./tasks.js";

/** A picture beside the page. */
export interface EvidencePlot {
  file: string;
  title: string;
  picture: RgbImage;
}

/** Half the height of an estimate's mark, in rows. */
const MARK = 0.18;

const titleOf = (name: string): string => methodNamed(name, ALL_METHODS).title;

/** Those that the runs suffice for. */
export async function evidencePlots(plan: Plan, records: ReadonlyMap<string, RunRecord>): Promise<EvidencePlot[]> {
  const main = (plan.byPart.get("main") ?? []).filter(
    ({ task }) => task.kind === "style" && TEST_STYLES.includes(task.style),
  );
  const rows = runsByMethod(main, records);
  const baseline = rows.find(({ row }) => row === BASELINE)?.records;
  if (!baseline) return [];
  const plots: EvidencePlot[] = [];
  const trained = rows.filter(({ row }) => row !== BASELINE && row !== "none");

  // Corrected together with all measures, as in the page's table.
  const differences = compare(trained, baseline).flatMap(({ row, metric, interval }) =>
    metric === METRICS[0] && interval?.corrected ? [{ row, ...interval, corrected: interval.corrected }] : [],
  );
  if (differences.length > 0) {
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
    const title = "Held-out error against LoRA's in percent, with corrected intervals; left of zero is better";
    const picture = await renderPlot({
      ...{
        title,
        xLabel: "percent",
        series: [zeroLine(0, count + 1), ...series],
        height: 120 + 34 * Math.max(count, 2),
      },
      ...{ xRange: [-reach, reach], yRange: [0.4, count + 0.6], width: 860 },
      yTicks: differences.map(({ row }, i) => ({ value: count - i, label: titleOf(row) })),
    });
    plots.push({ file: "differences.png", title, picture });
  }

  const profile = (own: readonly RunRecord[]) => {
    const parts = own[0]!.heldOut!.byTimestep;
    return parts.map(({ from, to }, i) => ({
      middle: (from + to) / 2,
      error: own.reduce((sum, { heldOut }) => sum + heldOut!.byTimestep[i]!.error, 0) / own.length,
    }));
  };
  const of = profile(baseline);
  const lines = trained.map(({ row, records: own }): PlotSeries => {
    const mine = profile(own);
    const change = mine.map(({ error }, i) => 100 * (error / of[i]!.error - 1));
    return { label: titleOf(row), x: mine.map(({ middle }) => middle), y: change };
  });
  if (lines.length > 0) {
    const title = "Held-out error against LoRA's in percent, by timestep (noise on the right)";
    const picture = await renderPlot({ title, xLabel: "timestep", yLabel: "percent", series: lines, height: 480 });
    plots.push({ file: "error-by-timestep.png", title, picture });
  }

  const routed = rows.find(({ row, records: own }) => row === "fera-plain" && own[0]!.gates);
  if (routed) {
    const [first] = routed.records;
    const times = first!.gates!.meanGates.map(({ timestep }) => timestep);
    const experts = first!.gates!.meanGates[0]!.gates.length;
    const series = Array.from(
      { length: experts },
      (_, expert): PlotSeries => ({
        label: `expert ${expert + 1}`,
        x: times,
        y: first!.gates!.meanGates.map(({ gates }) => gates[expert]!),
      }),
    );
    const title = `Mean gates over timesteps, ${titleOf("fera-plain")}, one run`;
    const picture = await renderPlot({ ...{ title, series, xLabel: "timestep" }, yRange: [0, 1] });
    plots.push({ file: "gates.png", title, picture });
  }
  return plots;
}

const zeroLine = (from: number, to: number): PlotSeries => ({
  ...{ label: "", x: [0, 0], y: [from, to], color: "#888", faint: true },
});
