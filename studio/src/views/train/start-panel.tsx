// The last step: what it will take, what is wrong still, its name, and the button.

import { counted, formatDuration } from "../../../../src/cli/format.js";
import { formatBytes } from "../../parts/amounts.js";
import { studio } from "../../store.js";
import { fieldId } from "./option-field.js";
import { labelOf } from "./option-texts.js";
import {
  abortPrediction,
  ahead,
  checkError,
  checked,
  isChecking,
  isStarting,
  options,
  predict,
  predicting,
  problems,
  runName,
  settings,
  start,
} from "./train-state.js";

export function StartPanel() {
  const count = checked.value?.problems.length ?? 0;
  const isReady = checked.value !== undefined && count === 0 && !isChecking.value && checkError.value === undefined;
  return (
    <section class="panel stack start-panel" aria-labelledby="start-title">
      <h2 id="start-title">Start</h2>
      <PredictionPart canAsk={isReady} />
      <ProblemList />
      <form
        class="stack tight"
        onSubmit={(event) => {
          event.preventDefault();
          if (isReady) void start();
        }}
      >
        <label>
          Name of the run
          <input
            type="text"
            maxLength={100}
            spellcheck={false}
            autocomplete="off"
            value={runName.value}
            placeholder="made up if left empty"
            onInput={(event) => {
              runName.value = event.currentTarget.value;
            }}
          />
        </label>
        {ahead.value && <p class="muted">{ahead.value.id} trains now: this run starts when it has ended.</p>}
        <button type="submit" class="primary" disabled={!isReady || isStarting.value}>
          {isStarting.value ? "Starting…" : ahead.value ? "Queue training" : "Start training"}
        </button>
        <p class="muted" role="status">
          {checkError.value === undefined &&
            (isChecking.value ? "Checking…" : count > 0 ? `${counted(count, "problem")} to mend first.` : "")}
        </p>
      </form>
    </section>
  );
}

/** Also of options that are folded away, with links to them. */
function ProblemList() {
  if (checkError.value !== undefined) {
    return (
      <p class="problem" role="alert">
        {checkError.value}
      </p>
    );
  }
  if (problems.value.size === 0) return null;
  return (
    <ul class="problem-list" aria-label="Problems">
      {[...problems.value].map(([name, found]) => {
        const option = options.value.find((known) => known.name === name);
        return (
          <li key={name}>
            {option && (
              <button type="button" class="link" onClick={() => document.getElementById(fieldId(name))?.focus()}>
                {labelOf(option)}
              </button>
            )}
            <span class="problem">{found.map(({ message }) => message).join(" ")}</span>
          </li>
        );
      })}
    </ul>
  );
}

function PredictionPart({ canAsk }: { canAsk: boolean }) {
  const current = predicting.value;
  const isUnderWay = current?.controller !== undefined;
  const isOld = current !== undefined && current.of !== JSON.stringify(settings.value);
  return (
    <div class="stack tight prediction" aria-live="polite">
      {current?.result && <Result isOld={isOld} />}
      {current?.error !== undefined && <p class="problem">{current.error}</p>}
      {isUnderWay && (
        <>
          <p>
            Running a few steps to measure them
            {current.progress && `: ${current.progress.done} of ${current.progress.total}`}…
          </p>
          <progress
            aria-label="Measured steps"
            {...(current.progress && { value: current.progress.done, max: current.progress.total })}
          />
        </>
      )}
      {!current && <p class="muted">See before you start how long it takes, and how much memory.</p>}
      <div class="row">
        {isUnderWay ? (
          <button type="button" onClick={abortPrediction}>
            Abort
          </button>
        ) : (
          <button type="button" disabled={!canAsk} onClick={() => void predict()}>
            {current?.result && isOld ? "Predict again" : "Predict time and memory"}
          </button>
        )}
      </div>
    </div>
  );
}

function Result({ isOld }: { isOld: boolean }) {
  const { seconds, secondsPerStep, peakMemoryBytes, basis } = predicting.value!.result!;
  const available = studio.value?.machine.memoryBytes;
  const isTooMuch = peakMemoryBytes !== undefined && available !== undefined && peakMemoryBytes > available;
  return (
    <div data-old={isOld}>
      <dl class="figures">
        <dt>Whole training</dt>
        <dd>{formatDuration(seconds)}</dd>
        <dt>One step</dt>
        <dd>{secondsPerStep >= 10 ? formatDuration(secondsPerStep) : `${secondsPerStep.toPrecision(2)} s`}</dd>
        {peakMemoryBytes !== undefined && (
          <>
            <dt>Memory at its peak</dt>
            <dd>
              {formatBytes(peakMemoryBytes)}
              {available !== undefined && <span class="muted"> of {formatBytes(available)}</span>}
            </dd>
          </>
        )}
      </dl>
      <p class="muted">
        From {basis}.{isOld && " The settings have changed since."}
      </p>
      {isTooMuch && (
        <p class="problem" role="alert">
          This is more memory than the machine has. Take a smaller batch or resolution, or turn on gradient
          checkpointing (under More options).
        </p>
      )}
    </div>
  );
}
