// The curves of a run, and of those that it is compared with.

import { signal } from "@preact/signals";
import { useMemo } from "preact/hooks";
import { Chart } from "../../charts/chart.js";
import type { Curve } from "../../charts/chart-data.js";
import {
  type DrawnRun,
  lossByTimestep,
  lossCurves,
  plainCurves,
  timestepProfile,
  validationByBand,
  validationByTimestep,
  validationCurves,
} from "./curves.js";

/** Exponent of the steps that count: 0 is each step alone, 3 about a thousand. */
const smoothness = signal(1.5);
const isLogarithmic = signal(false);
const NEWEST_STEPS = 500;

export function RunCurves({ runs }: { runs: readonly DrawnRun[] }) {
  const smoothing = 1 - 10 ** -smoothness.value;
  const isLog = isLogarithmic.value;
  // Runs are made anew on every rendering; their lines are another array only where there are more of them.
  const curves = useMemo(() => {
    const [first] = runs;
    const of = (name: string) => (runs.length > 1 ? `${name} of ${first!.id}` : name);
    const make = (title: string, list: Curve[], xLabel = "step") => ({ title, curves: list, xLabel });
    return {
      loss: make("Training loss", lossCurves(runs, smoothing)),
      others: [
        make("Validation loss", validationCurves(runs)),
        make(of("Training loss by timestep, smoothed"), lossByTimestep(first!, smoothing)),
        make(`Loss over timesteps, newest ${NEWEST_STEPS} steps`, timestepProfile(runs, NEWEST_STEPS), "timestep"),
        make(of("Validation loss by timestep"), validationByTimestep(first!)),
        make(of("Validation loss by frequency"), validationByBand(first!)),
        make(
          "Learning rate",
          plainCurves(runs, "learning rate", (line) => line.learningRate),
        ),
        make(
          "Gradient norm, before clipping",
          plainCurves(runs, "gradient norm", (line) => line.gradientNorm),
        ),
        make(
          "Steps per second",
          plainCurves(runs, "steps per second", (line) => line.stepsPerSecond),
        ),
      ].filter((chart) => chart.curves.some(({ x }) => x.length > 0)),
    };
  }, [smoothing, ...runs.flatMap(({ id, lines }) => [id, lines]), runs.length]);
  return (
    <section class="stack" aria-label="Curves">
      <div class="panel">
        <Chart {...curves.loss} isLog={isLog} sync="steps" height={280}>
          <label>
            Smoothing
            <input
              type="range"
              min={0}
              max={3}
              step={0.1}
              value={smoothness.value}
              aria-valuetext={`about ${Math.round(10 ** smoothness.value)} steps`}
              onInput={({ currentTarget }) => {
                smoothness.value = Number(currentTarget.value);
              }}
            />
          </label>
          <label>
            <input
              type="checkbox"
              checked={isLog}
              onChange={({ currentTarget }) => {
                isLogarithmic.value = currentTarget.checked;
              }}
            />
            Logarithmic
          </label>
        </Chart>
      </div>
      <div class="charts">
        {curves.others.map((chart) => (
          <div class="panel" key={chart.title}>
            <Chart
              {...chart}
              isLog={isLog && chart.title !== "Learning rate" && chart.title !== "Steps per second"}
              {...(chart.xLabel === "step" && { sync: "steps" })}
            />
          </div>
        ))}
      </div>
    </section>
  );
}
