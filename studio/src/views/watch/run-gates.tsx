// How the router's gates moved during the training.

import { useMemo, useState } from "preact/hooks";
import { Chart } from "../../charts/chart.js";
import { describeChange, describeClosed } from "../../charts/routing.js";
import { ALL_TIMESTEPS, type DrawnRun, gateCurves, gateTimesteps, newestGates } from "./curves.js";

/** Kinds of adapters that have a router. */
const ROUTED = new Set(["fera"]);

interface Props {
  run: DrawnRun;
  adapterKind: string | undefined;
  /** The run's setting: what the gates follow. */
  router: unknown;
  hasEnded: boolean;
}

export function RunGates({ run, adapterKind, router, hasEnded }: Props) {
  const timesteps = gateTimesteps(run);
  const [chosen, setChosen] = useState(ALL_TIMESTEPS);
  // A run is made anew on every rendering, its lines are not.
  const curves = useMemo(() => gateCurves(run, chosen), [run.lines, chosen]);
  if (adapterKind !== undefined && !ROUTED.has(adapterKind)) {
    return (
      <section class="panel" aria-labelledby="gates-title">
        <h2 id="gates-title">Routing</h2>
        <p>
          This adapter ({adapterKind}) has no router: it acts alike at every timestep, so there is no routing to show.
        </p>
      </section>
    );
  }
  const places = [ALL_TIMESTEPS, ...[...timesteps].sort((a, b) => b - a)];
  const place = Math.max(0, places.indexOf(chosen));
  const closed = describeClosed(newestGates(run), router);
  const name = chosen === ALL_TIMESTEPS ? "mean over all timesteps" : `timestep ${chosen}`;
  return (
    <section class="panel stack" aria-labelledby="gates-title">
      <h2 id="gates-title">Routing during the training</h2>
      {curves.length === 0 ? (
        <p class="muted">
          {hasEnded
            ? "This run ended before its router's gates were first measured."
            : "The router's gates are measured now and then; the first measurement is still to come."}
        </p>
      ) : (
        <>
          <p>{describeChange(curves)}</p>
          {closed !== undefined && <p class="closed">{closed}</p>}
          <Chart
            title={`The router's gates, ${name}`}
            curves={curves}
            xLabel="step"
            isStacked
            summary={describeChange(curves)}
          >
            <label>
              Timestep
              <input
                type="range"
                min={0}
                max={places.length - 1}
                value={place}
                aria-valuetext={name}
                onInput={({ currentTarget }) => setChosen(places[Number(currentTarget.value)]!)}
              />
            </label>
          </Chart>
        </>
      )}
    </section>
  );
}
