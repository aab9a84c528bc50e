// What a run is: its state and numbers now, its settings, its adapter; and how it differs from those beside it.

import { useEffect, useState } from "preact/hooks";
import { formatCount, formatDuration } from "../../../../src/cli/format.js";
import type { RunDetails } from "../../../../src/studio/protocol.js";
import { formatValue } from "../../charts/chart-data.js";
import { formatBytes } from "../../parts/amounts.js";
import { STATE_NAMES } from "../../parts/run-actions.js";
import { formatSpeed } from "../../parts/runs-list.js";
import { addressOf } from "../../route.js";
import { attempt, backend, runs } from "../../store.js";
import { type DrawnRun, settingDifferences } from "./curves.js";

type AboutRun = DrawnRun & { details?: RunDetails };

export function RunAbout({ runs: shown }: { runs: readonly AboutRun[] }) {
  const [first] = shown;
  const { id, details, lines } = first!;
  const run = runs.value.find((each) => each.id === id);
  if (!run) return undefined;
  const last = lines.at(-1);
  const facts: [string, string | undefined][] = [
    ["State", STATE_NAMES[run.state]],
    ["Steps", `${formatCount(run.step)} of ${formatCount(run.steps)}`],
    ["Loss", run.loss === undefined ? undefined : formatValue(run.loss)],
    ["Learning rate", last?.learningRate === undefined ? undefined : formatValue(last.learningRate)],
    ["Speed", run.stepsPerSecond === undefined ? undefined : formatSpeed(run.stepsPerSecond)],
    ["Time left", run.secondsLeft === undefined ? undefined : formatDuration(run.secondsLeft)],
    ["Memory", run.peakMemoryBytes === undefined ? undefined : formatBytes(run.peakMemoryBytes)],
  ];
  return (
    <section class="panel stack" aria-labelledby="run-title">
      <div class="row">
        <h2 id="run-title">{id}</h2>
        <span class="muted doing" title={run.activity}>
          {run.adapterKind} on {run.model}
          {run.activity !== undefined && ` · ${run.activity}`}
        </span>
        <span class="end row">
          {details?.adapterFile !== undefined && (
            <AdapterLink run={id} file={details.adapterFile} changedAt={run.changedAt} />
          )}
          {details?.adapterId !== undefined && (
            <a href={addressOf("try", { adapter: details.adapterId, model: run.model })}>Try it</a>
          )}
        </span>
      </div>
      <dl class="facts">
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt class="muted">{name}</dt>
            <dd>{value ?? "–"}</dd>
          </div>
        ))}
      </dl>
      {run.error !== undefined && (
        <p class="problem" role="alert">
          {run.error}
        </p>
      )}
      {shown.length > 1 && <Differences runs={shown} />}
      {details && (
        <details>
          <summary>Settings and command</summary>
          <div class="stack">
            <pre>{details.command}</pre>
            <pre>{JSON.stringify(details.settings, undefined, 2)}</pre>
          </div>
        </details>
      )}
    </section>
  );
}

/** @param changedAt - Of the run: the address of an adapter that is written anew may be another. */
function AdapterLink({ run, file, changedAt }: { run: string; file: string; changedAt: number }) {
  const [url, setUrl] = useState<string>();
  useEffect(() => {
    let isCurrent = true;
    void attempt(() => backend().runFileUrl(run, file)).then((found) => isCurrent && setUrl(found));
    return () => {
      isCurrent = false;
    };
  }, [run, file, changedAt]);
  return url === undefined ? undefined : (
    <a href={url} download={file}>
      Download the adapter
    </a>
  );
}

function Differences({ runs: shown }: { runs: readonly AboutRun[] }) {
  const told = shown.filter((run) => run.details !== undefined);
  const rows = settingDifferences(told.map(({ details }) => details!));
  if (told.length < 2) return undefined;
  if (rows.length === 0) return <p>All of these runs have the same settings.</p>;
  return (
    <div class="numbers">
      <table class="plain-table">
        <caption class="visually-hidden">Settings that differ between the runs</caption>
        <thead>
          <tr>
            <th scope="col">Settings that differ</th>
            {told.map(({ id, color }) => (
              <th key={id} scope="col">
                <span class="swatch" style={{ background: `var(${color})` }} /> {id}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map(({ name, values }) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              {values.map((value, i) => (
                <td key={told[i]!.id}>{value}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
