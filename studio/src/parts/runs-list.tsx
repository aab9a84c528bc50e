// The runs of the folder, what each is doing, and the buttons to steer them: part of the views that train and watch.

import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { formatCount, formatDuration } from "../../../src/cli/format.js";
import type { RunSummary } from "../../../src/studio/protocol.js";
import { isAtWork } from "../../../src/studio/run-states.js";
import { addressOf } from "../route.js";
import { attempt, backend, runs, studio } from "../store.js";
import { formatBytes, ordinal } from "./amounts.js";
import { ConfirmDialog, type Question } from "./confirm-dialog.js";
import { actionsOf, type OfferedAction, queuePlaces, STATE_NAMES } from "./run-actions.js";
import "./runs-list.css";

interface Props {
  /** The run that is shown beside the list. */
  selected?: string | undefined;
  /** What else a run has in its row, such as a box to compare it. */
  extra?(run: RunSummary): ComponentChildren;
}

/** Actions that were asked for and not answered yet, by run. */
const underWay = signal<ReadonlySet<string>>(new Set());
const question = signal<Question | undefined>(undefined);

export function RunsList({ selected, extra }: Props) {
  const places = queuePlaces(runs.value);
  if (runs.value.length === 0) return <p class="muted">No runs yet. What is trained appears here.</p>;
  return (
    <>
      <ul class="runs" aria-label="Runs">
        {runs.value.map((run) => (
          <li key={run.id} class={run.id === selected ? "run selected" : "run"} data-state={run.state}>
            <Head run={run} isSelected={run.id === selected} />
            <Progress run={run} place={places.get(run.id)} />
            {run.error !== undefined && <p class="problem">{run.error}</p>}
            <div class="row">
              {actionsOf(run).map((offered) => (
                <ActionButton key={offered.label} run={run} offered={offered} />
              ))}
              {extra?.(run)}
            </div>
          </li>
        ))}
      </ul>
      {question.value && (
        <ConfirmDialog
          question={question.value}
          onClose={() => {
            question.value = undefined;
          }}
        />
      )}
    </>
  );
}

function Head({ run, isSelected }: { run: RunSummary; isSelected: boolean }) {
  return (
    <div class="head">
      <a href={addressOf("watch", { run: run.id })} aria-current={isSelected ? "true" : undefined}>
        {run.id}
      </a>
      <span class="state">{STATE_NAMES[run.state]}</span>
      <span class="muted about" title={`${run.adapterKind} on ${run.model}`}>
        {run.adapterKind} on {run.model.split(/[/\\]/).at(-1)}
        {!run.isOurs && (studio.value?.kind === "tab" ? ", in another tab" : ", from the command line")}
      </span>
    </div>
  );
}

function Progress({ run, place }: { run: RunSummary; place: number | undefined }) {
  const { step, steps, loss, secondsLeft, stepsPerSecond, peakMemoryBytes, activity } = run;
  const facts = [
    `${formatCount(step)} of ${formatCount(steps)} steps`,
    place !== undefined && `${ordinal(place)} in the queue`,
    loss !== undefined && `loss ${loss.toPrecision(3)}`,
    isAtWork(run.state) && stepsPerSecond !== undefined && `${formatSpeed(stepsPerSecond)}`,
    isAtWork(run.state) && secondsLeft !== undefined && `${formatDuration(secondsLeft)} left`,
    isAtWork(run.state) && peakMemoryBytes !== undefined && formatBytes(peakMemoryBytes),
    (isAtWork(run.state) || run.state === "queued") && activity,
  ];
  return (
    <div class="progress">
      <progress max={Math.max(steps, 1)} value={step} aria-label={`Steps of ${run.id}`} />
      <span class="muted facts">{facts.filter(Boolean).join(" · ")}</span>
    </div>
  );
}

/** Slow ones by the seconds of a step. */
export const formatSpeed = (stepsPerSecond: number): string =>
  stepsPerSecond >= 1 ? `${stepsPerSecond.toPrecision(2)} steps/s` : `${(1 / stepsPerSecond).toPrecision(2)} s a step`;

function ActionButton({ run, offered }: { run: RunSummary; offered: OfferedAction }) {
  const { action, label, explanation } = offered;
  const act = async () => {
    underWay.value = new Set([...underWay.value, run.id]);
    await attempt(() => backend().act(run.id, action));
    underWay.value = new Set([...underWay.value].filter((id) => id !== run.id));
  };
  const ask = () => {
    question.value = {
      title: `Remove ${run.id}?`,
      text: "Its folder is deleted with the adapter, checkpoints, pictures and metrics. This cannot be undone.",
      action: "Remove",
      onConfirm: () => void act(),
    };
  };
  return (
    <button
      type="button"
      title={explanation}
      aria-label={`${label} ${run.id}`}
      disabled={underWay.value.has(run.id)}
      onClick={action === "remove" ? ask : () => void act()}
    >
      {label}
    </button>
  );
}
