// Runs, one of them closely: its curves, pictures and routing, beside those that it is compared with.

import { signal } from "@preact/signals";
import { hasEnded } from "../../../../src/studio/run-states.js";
import { seriesToken } from "../../charts/scheme.js";
import { RunsList } from "../../parts/runs-list.js";
import { addressOf, route } from "../../route.js";
import { runs } from "../../store.js";
import { RunAbout } from "./run-about.js";
import { FurtherCharts, LossChart } from "./run-curves.js";
import { RunGates } from "./run-gates.js";
import { RunSamples } from "./run-samples.js";
import { useKnownRuns } from "./run-store.js";
import "./watch.css";

/** Runs that are drawn beside the chosen one, in the order in which they were ticked. */
const compared = signal<readonly string[]>([]);
/** Another run that does something must not take the place of one that is looked at. */
const lookedAt: { current: string | undefined } = { current: undefined };
/** As many colours as there are. */
const MOST_COMPARED = 5;

export function WatchPage() {
  const asked = route.value.parameters.get("run");
  const isThere = (id: string | null | undefined) => runs.value.some((run) => run.id === id);
  // Without one in the address, what was looked at before, or the run that did something last.
  const newest = [...runs.value].sort((a, b) => b.changedAt - a.changedAt)[0]?.id;
  const chosen = [asked, lookedAt.current, newest].find(isThere) ?? undefined;
  lookedAt.current = chosen;
  const others = compared.value.filter((id) => id !== chosen && runs.value.some((run) => run.id === id));
  const ids = chosen === undefined ? [] : [chosen, ...others];
  const known = useKnownRuns(ids);
  const drawn = ids.flatMap((id, i) => {
    const run = known.get(id);
    return run ? [{ id, color: seriesToken(i), ...run }] : [];
  });
  const [first] = drawn;
  return (
    <div class="columns watch">
      <div class="stack">
        <h1>Watch</h1>
        <RunsList
          selected={chosen}
          extra={({ id }) =>
            id !== chosen && (
              <label class="compare">
                <input
                  type="checkbox"
                  checked={others.includes(id)}
                  disabled={!others.includes(id) && others.length >= MOST_COMPARED}
                  onChange={({ currentTarget: { checked } }) => {
                    compared.value = checked ? [...others, id] : others.filter((each) => each !== id);
                  }}
                />
                Compare
                {others.includes(id) && (
                  <span class="swatch" style={{ background: `var(${seriesToken(others.indexOf(id) + 1)})` }} />
                )}
              </label>
            )
          }
        />
      </div>
      <div class="stack">
        {asked !== null && asked !== chosen && (
          <p class="problem">There is no run {JSON.stringify(asked)} in the folder of the runs.</p>
        )}
        {chosen === undefined && (
          <p class="muted">
            <a href={addressOf("train")}>Start a training</a>, and its curves and pictures are drawn here.
          </p>
        )}
        {first && (
          <>
            <RunAbout runs={drawn} />
            <LossChart runs={drawn} />
            {first.details && <RunSamples key={first.id} details={first.details} />}
            <RunGates
              key={`gates ${first.id}`}
              run={first}
              adapterKind={first.details?.adapterKind}
              router={first.details?.settings.router}
              hasEnded={first.details !== undefined && hasEnded(first.details.state)}
            />
            <FurtherCharts runs={drawn} />
          </>
        )}
      </div>
    </div>
  );
}
