// The view that starts trainings: a form made of the options that the command line has, and the runs that there are.

import { useEffect } from "preact/hooks";
import { RunsList } from "../../parts/runs-list.js";
import { route } from "../../route.js";
import { reconnections, studio } from "../../store.js";
import { CommandPanel } from "./command-panel.js";
import { MoreOptions } from "./more-options.js";
import { OptionField } from "./option-field.js";
import { SettingsSource } from "./settings-source.js";
import { Sources } from "./sources.js";
import { StartPanel } from "./start-panel.js";
import { checkSoon, data, loadOptions, lookAtData, offered, options, settings, takeRoute } from "./train-state.js";
import "./train.css";

export function TrainPage() {
  useEffect(() => void loadOptions(), [reconnections.value]);
  useEffect(takeRoute, [route.value, studio.value]);
  const places = JSON.stringify(data.value);
  const { model, resolution } = settings.value;
  useEffect(() => void lookAtData(), [places, model, resolution, studio.value]);
  // Not by identity: an image list that is read again makes equal settings.
  const all = JSON.stringify(settings.value);
  useEffect(() => {
    if (options.value.length > 0) checkSoon();
  }, [all, options.value, reconnections.value]);
  const main = offered.value.filter(({ isMain }) => isMain);
  return (
    <div class="train-page">
      <div class="stack">
        <div class="row between">
          <h1>Train</h1>
          <SettingsSource />
        </div>
        <Sources />
        <section class="panel stack" aria-labelledby="main-title">
          <div class="row between">
            <h2 id="main-title">How</h2>
            {/* Each mark tells it itself to those who do not see it. */}
            <span class="muted legend" aria-hidden="true">
              <span class="changed-mark" /> not the default
            </span>
          </div>
          {main.length === 0 ? (
            <p role="status">Asking for the options…</p>
          ) : (
            <div class="fields">
              {main.map((option) => (
                <OptionField key={option.name} option={option} />
              ))}
            </div>
          )}
        </section>
        <MoreOptions />
      </div>
      <div class="stack side">
        <StartPanel />
        <CommandPanel />
        <section class="stack tight" aria-labelledby="runs-title">
          <h2 id="runs-title">Runs</h2>
          <RunsList />
        </section>
      </div>
    </div>
  );
}
