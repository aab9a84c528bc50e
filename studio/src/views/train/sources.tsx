// What is trained on what: the model, and data sets.

import { useState } from "preact/hooks";
import { counted } from "../../../../src/cli/format.js";
import { addressOf } from "../../route.js";
import { studio } from "../../store.js";
import { data, dataError, looked, model, own, problems, set } from "./train-state.js";

const OTHER = "\0other";

export function Sources() {
  return (
    <section class="panel stack" aria-labelledby="sources-title">
      <h2 id="sources-title">What to train</h2>
      <div class="fields">
        <ModelField />
        <DataField />
      </div>
    </section>
  );
}

function ModelField() {
  const models = studio.value?.models ?? [];
  const [isTyped, setTyped] = useState(() => models.every(({ id }) => id !== model.value));
  const found = problems.value.get("model") ?? [];
  const isListed = models.some(({ id }) => id === model.value);
  const isOther = isTyped || !isListed;
  return (
    <div class="field" data-option="model">
      <label for="option-model">Model</label>
      <select
        id="option-model"
        aria-describedby="model-problem"
        value={isOther ? OTHER : model.value}
        onChange={(event) => {
          const { value } = event.currentTarget;
          setTyped(value === OTHER);
          if (value !== OTHER) set("model", value);
        }}
      >
        {models.map(({ id, label, defaultSize }) => (
          <option key={id} value={id}>
            {label}
            {defaultSize !== undefined && `, ${defaultSize} pixels`}
          </option>
        ))}
        <option value={OTHER}>Another one…</option>
      </select>
      {isOther && (
        <input
          type="text"
          aria-label="Path of a model, or its id on the hub"
          placeholder="a folder, or an id such as organization/model"
          value={typeof own.value.model === "string" && !isListed ? own.value.model : ""}
          onInput={(event) => set("model", event.currentTarget.value.trim() || undefined)}
        />
      )}
      <p class="problem" id="model-problem">
        {found.map(({ message }) => message).join(" ")}
      </p>
    </div>
  );
}

function DataField() {
  const sets = studio.value?.dataSets ?? [];
  const found = problems.value.get("data") ?? [];
  const listed = new Set(sets.map(({ id }) => id));
  // What came from a file and is not among them.
  const others = data.value.filter((id) => !listed.has(id));
  const toggle = (id: string, isOn: boolean) => {
    set("data", isOn ? [...data.value, id] : data.value.filter((known) => known !== id));
  };
  return (
    <fieldset class="field plain data-field" data-option="data">
      <legend>Data sets</legend>
      {sets.length === 0 && (
        <p>
          There are none yet. <a href={addressOf("data")}>Add some images</a> first.
        </p>
      )}
      <div class="data-choices">
        {sets.map(({ id, label, images }) => (
          <label key={id} class="tick" title={id}>
            <input
              type="checkbox"
              checked={data.value.includes(id)}
              onChange={(event) => toggle(id, event.currentTarget.checked)}
            />
            <span>
              {label} <span class="muted">{counted(looked.value.get(id)?.images.length ?? images, "image")}</span>
            </span>
          </label>
        ))}
        {others.map((id) => (
          <label key={id} class="tick">
            <input type="checkbox" checked onChange={() => toggle(id, false)} />
            <span>{id}</span>
          </label>
        ))}
      </div>
      {found.length > 0 && <p class="problem">{found.map(({ message }) => message).join(" ")}</p>}
      {dataError.value !== undefined && <p class="problem">{dataError.value}</p>}
    </fieldset>
  );
}
