// Settings from elsewhere, and to elsewhere: an earlier run, or a file as `fera train --config` reads.

import { useRef } from "preact/hooks";
import { formatBytes } from "../../parts/amounts.js";
import { attempt, runs, tell } from "../../store.js";
import { MAX_FILE_BYTES, readSettings, writeSettings } from "./settings-file.js";
import { checked, options, own, replaceAll, runName, settings, useSettingsOf } from "./train-state.js";

export function SettingsSource() {
  const picker = useRef<HTMLInputElement>(null);
  const read = async (input: HTMLInputElement) => {
    const file = input.files?.[0];
    input.value = "";
    if (!file) return;
    await attempt(async () => {
      if (file.size > MAX_FILE_BYTES) {
        throw new Error(
          `${file.name} has ${formatBytes(file.size)}; settings have ${formatBytes(MAX_FILE_BYTES)} at most.`,
        );
      }
      const text = await file.text();
      try {
        replaceAll(readSettings(text, options.value), file.name);
      } catch (cause) {
        throw new Error(`${file.name}: ${(cause as Error).message}`, { cause });
      }
    });
  };
  const save = () => {
    // What run.json will hold is whole; before it is checked, what the form has is all there is.
    const content = checked.value?.problems.length === 0 ? checked.value.settings : settings.value;
    const url = URL.createObjectURL(new Blob([writeSettings(content)], { type: "application/json" }));
    const link = document.createElement("a");
    link.href = url;
    link.download = `${runName.value.trim().replaceAll(/[^\w.-]+/g, "-") || "fera-settings"}.json`;
    link.click();
    // Not at once: the download begins after the click is handled.
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  };
  const clear = () => {
    own.value = {};
    tell("All options are as suggested.");
  };
  return (
    <div class="row settings-source">
      <label>
        <span class="visually-hidden">Use the settings of a run</span>
        <select
          value=""
          disabled={runs.value.length === 0}
          onChange={(event) => {
            const { value } = event.currentTarget;
            event.currentTarget.value = "";
            if (value !== "") void useSettingsOf(value);
          }}
        >
          <option value="">Settings of a run…</option>
          {runs.value.map(({ id }) => (
            <option key={id} value={id}>
              {id}
            </option>
          ))}
        </select>
      </label>
      <button type="button" onClick={() => picker.current?.click()}>
        Import…
      </button>
      <button type="button" onClick={save}>
        Export
      </button>
      <button type="button" disabled={Object.keys(own.value).length === 0} onClick={clear}>
        Reset all
      </button>
      <input
        ref={picker}
        type="file"
        accept=".json,application/json"
        hidden
        aria-label="Settings to import"
        onChange={(event) => void read(event.currentTarget)}
      />
    </div>
  );
}
