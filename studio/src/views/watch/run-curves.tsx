// The curves of a run, and of those that it is compared with: the loss, and all others.

import { signal } from "@preact/signals";
import { useRef } from "preact/hooks";
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

interface Props {
  runs: readonly DrawnRun[];
}

const smoothing = (): number => 1 - 10 ** -smoothness.value;

/** Runs are made anew on every rendering; their lines are another array only where there are more of them. */
const contentOf = (runs: readonly DrawnRun[]): unknown[] => [
  runs.length,
  ...runs.flatMap(({ id, lines }) => [id, lines]),
];

/** A value that is made anew when the runs' content, or the smoothing, changes. */
function useCurves<T>(runs: readonly DrawnRun[], make: () => T): T {
  const content = [smoothing(), ...contentOf(runs)];
  const last = useRef<{ content: unknown[]; value: T } | undefined>(undefined);
  const isSame =
    last.current?.content.length === content.length && content.every((each, i) => each === last.current!.content[i]);
  if (!isSame) last.current = { content, value: make() };
  return last.current!.value;
}

/** The training loss, and how it is smoothed. */
export function LossChart({ runs }: Props) {
  const curves = useCurves(runs, () => lossCurves(runs, smoothing()));
  const isLog = isLogarithmic.value;
  return (
    <section class="panel" aria-label="Training loss">
      <Chart title="Training loss" curves={curves} xLabel="step" isLog={isLog} sync="steps" height={280}>
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
    </section>
  );
}

/** All that is known beside the training loss. */
export function FurtherCharts({ runs }: Props) {
  const charts = useCurves(runs, () => {
    const [first] = runs;
    const of = (name: string) => (runs.length > 1 ? `${name}, of ${first!.id}` : name);
    const make = (title: string, curves: Curve[], xLabel = "step") => ({ title, curves, xLabel });
    return [
      make("Validation loss", validationCurves(runs)),
      make(of("Training loss by timestep, smoothed"), lossByTimestep(first!, smoothing())),
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
        "Peak memory in GB",
        plainCurves(runs, "peak memory", ({ peakMemoryBytes }) => peakMemoryBytes && peakMemoryBytes / 1e9),
      ),
      make(
        "Steps per second",
        plainCurves(runs, "steps per second", (line) => line.stepsPerSecond),
      ),
    ].filter(({ curves }) => curves.some(({ x }) => x.length > 0));
  });
  const isLog = isLogarithmic.value;
  return (
    <section class="charts" aria-label="Further curves">
      {charts.map((chart) => (
        <div class="panel" key={chart.title}>
          <Chart
            {...chart}
            isLog={isLog && /loss/i.test(chart.title)}
            {...(chart.xLabel === "step" && { sync: "steps" })}
          />
        </div>
      ))}
    </section>
  );
}
