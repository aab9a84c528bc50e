// The form of the try view.

import type { ComponentChildren } from "preact";
import { useId, useState } from "preact/hooks";
import { counted } from "../../../../src/cli/format.js";
import { type DrawForm, type FormProblems, fittingAdapters, MANY_PICTURES, readForm } from "./draw-form.js";
import { choices, draw, drawings, form } from "./drawings.js";
import { SettingsButton } from "./settings-drop.js";
import { exampleOf, GRID_OPTIONS, type GridOption } from "./value-list.js";

const LARGEST_SEED = 2 ** 32;

const change = (part: Partial<DrawForm>): void => {
  form.value = { ...form.value, ...part };
};
const newSeed = () => change({ seed: String(Math.floor(Math.random() * LARGEST_SEED)) });

export function DrawFields() {
  // What is wrong is told once drawing was asked for.
  const [isAsked, setAsked] = useState(false);
  const { model, prompt, negativePrompt, sampler, isSeedNew, compare, hasGrid } = form.value;
  const { models, samplers } = choices.value;
  const { problems, count } = readForm(form.value, choices.value);
  const shown = isAsked ? problems : {};
  const usualSide = String(models.find(({ id }) => id === model)?.defaultSize ?? "as trained");
  const submit = (event: Event) => {
    event.preventDefault();
    if (form.value.isSeedNew) newSeed();
    const { request } = readForm(form.value, choices.value);
    setAsked(request === undefined);
    if (request) void draw(request, count);
  };
  const isDrawing = drawings.value.some(({ isOver }) => !isOver);
  return (
    <form class="panel stack draw-form" onSubmit={submit} noValidate>
      <Field label="Model" problem={shown.model}>
        {(attributes) => (
          <select
            {...attributes}
            value={model}
            onChange={({ currentTarget }) => change({ model: currentTarget.value })}
          >
            {!models.some(({ id }) => id === model) && (
              <option value={model}>{model === "" ? "choose one" : model}</option>
            )}
            {models.map(({ id, label }) => (
              <option key={id} value={id}>
                {label}
              </option>
            ))}
          </select>
        )}
      </Field>
      <Words label="Prompt" rows={3} value={prompt} onValue={(next) => change({ prompt: next })} />
      <Words
        label="Negative prompt"
        rows={1}
        value={negativePrompt}
        onValue={(next) => change({ negativePrompt: next })}
      />
      <AdapterFields problem={shown.adapters} />
      <label>
        <input
          type="checkbox"
          checked={compare}
          onChange={({ currentTarget }) => change({ compare: currentTarget.checked })}
        />{" "}
        Compare with no adapter
      </label>
      {shown.compare && <p class="problem">{shown.compare}</p>}
      <fieldset class="seed">
        <legend>Seed</legend>
        <div class="row">
          <NumberInput name="seed" label="Seed" problems={shown} isBare />
          <button type="button" title="Roll another seed" onClick={newSeed}>
            Roll
          </button>
        </div>
        {shown.seed && <p class="problem">{shown.seed}</p>}
        <div class="row">
          <label>
            <input type="radio" name="seed-kind" checked={!isSeedNew} onChange={() => change({ isSeedNew: false })} />{" "}
            keep
          </label>
          <label>
            <input type="radio" name="seed-kind" checked={isSeedNew} onChange={() => change({ isSeedNew: true })} /> new
            each time
          </label>
        </div>
      </fieldset>
      <div class="numbers">
        <NumberInput name="steps" label="Steps" problems={shown} />
        <NumberInput name="guidanceScale" label="Guidance" problems={shown} />
        <NumberInput name="width" label="Width" problems={shown} placeholder={usualSide} />
        <NumberInput name="height" label="Height" problems={shown} placeholder={usualSide} />
      </div>
      <Field label="Sampler">
        {(attributes) => (
          <select
            {...attributes}
            value={sampler}
            onChange={({ currentTarget }) => change({ sampler: currentTarget.value })}
          >
            <option value="">the model's own</option>
            {samplers.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        )}
      </Field>
      <label>
        <input
          type="checkbox"
          checked={hasGrid}
          onChange={({ currentTarget }) => change({ hasGrid: currentTarget.checked })}
        />{" "}
        Grid over options
      </label>
      {hasGrid && <GridFields problems={shown} />}
      <div class="row actions">
        <button class="primary" type="submit">
          {count > 1 ? `Draw ${count} pictures` : "Draw"}
        </button>
        <SettingsButton />
      </div>
      {count > MANY_PICTURES && (
        <p class="warning">{counted(count, "picture")} take a while; fewer steps or a smaller size are faster.</p>
      )}
      {isAsked && Object.keys(problems).length > 0 && (
        <p class="problem" role="alert">
          Nothing is drawn yet: {counted(Object.keys(problems).length, "field")} above to mend.
        </p>
      )}
      {isDrawing && <p class="muted">Drawings wait for each other.</p>}
    </form>
  );
}

interface FieldAttributes {
  id: string;
  "aria-label"?: string;
  "aria-invalid"?: boolean;
  "aria-describedby"?: string;
}

function Field(props: {
  label: string;
  problem?: string | undefined;
  children(attributes: FieldAttributes): ComponentChildren;
}) {
  const { label, problem, children } = props;
  const id = useId();
  const attributes = {
    id,
    ...(problem !== undefined && { "aria-invalid": true, "aria-describedby": `${id}-problem` }),
  };
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children(attributes)}
      {problem !== undefined && (
        <p class="problem" id={`${id}-problem`}>
          {problem}
        </p>
      )}
    </div>
  );
}

interface NumberProps {
  name: "seed" | "steps" | "guidanceScale" | "width" | "height";
  label: string;
  problems: FormProblems;
  placeholder?: string;
  /** Label and problem stand elsewhere. */
  isBare?: boolean;
}

function NumberInput({ name, label, problems, placeholder, isBare = false }: NumberProps) {
  const input = (attributes: Partial<FieldAttributes>) => (
    <input
      {...attributes}
      type="text"
      inputMode="decimal"
      value={form.value[name]}
      placeholder={placeholder}
      onInput={({ currentTarget }) => change({ [name]: currentTarget.value })}
    />
  );
  if (!isBare) {
    return (
      <Field label={label} problem={problems[name]}>
        {input}
      </Field>
    );
  }
  return (
    <div class="grow">
      {input({ "aria-label": label, ...(problems[name] !== undefined && { "aria-invalid": true }) })}
    </div>
  );
}

function Words(field: { label: string; rows: number; value: string; onValue: (next: string) => void }) {
  const { label, rows, value, onValue } = field;
  return (
    <Field label={label}>
      {(attributes) => (
        <textarea
          {...attributes}
          rows={rows}
          value={value}
          onInput={({ currentTarget }) => onValue(currentTarget.value)}
        />
      )}
    </Field>
  );
}

function AdapterFields({ problem }: { problem: string | undefined }) {
  const { adapters: scales, model } = form.value;
  const fitting = fittingAdapters(choices.value.adapters, model);
  return (
    <fieldset class="adapters">
      <legend>Adapters</legend>
      {fitting.length === 0 && <p class="muted">None for this model yet: what is trained on it appears here.</p>}
      {fitting.map(({ id, label }) => {
        const scale = scales[id];
        const set = (next: number | undefined) => {
          const { [id]: _, ...rest } = form.value.adapters;
          change({ adapters: next === undefined ? rest : { ...rest, [id]: next } });
        };
        return (
          <div class="adapter" key={id}>
            <label title={id}>
              <input
                type="checkbox"
                checked={scale !== undefined}
                onChange={({ currentTarget }) => set(currentTarget.checked ? 1 : undefined)}
              />{" "}
              {label}
            </label>
            {scale !== undefined && (
              <div class="scale">
                <input
                  type="range"
                  min={-1}
                  max={2}
                  step={0.05}
                  value={scale}
                  aria-label={`Scale of ${label}`}
                  onInput={({ currentTarget }) => set(Number(currentTarget.value))}
                />
                <output>{scale}</output>
              </div>
            )}
          </div>
        );
      })}
      {problem !== undefined && <p class="problem">{problem}</p>}
    </fieldset>
  );
}

function GridFields({ problems }: { problems: FormProblems }) {
  const axes = [
    { name: "x", label: "Across" },
    { name: "y", label: "Down" },
  ] as const;
  return (
    <div class="stack">
      {axes.map(({ name, label }) => {
        const { option, values } = form.value[name];
        return (
          <fieldset key={name}>
            <legend>{label}</legend>
            <div class="axis">
              <select
                aria-label={`${label}: option`}
                value={option}
                onChange={({ currentTarget }) =>
                  change({ [name]: { values, option: currentTarget.value as GridOption } })
                }
              >
                {name === "y" && <option value="">nothing</option>}
                {Object.entries(GRID_OPTIONS).map(([key, { label: text }]) => (
                  <option key={key} value={key}>
                    {text}
                  </option>
                ))}
              </select>
              {option !== "" && (
                <input
                  type="text"
                  aria-label={`${label}: values`}
                  aria-invalid={problems[name] !== undefined}
                  value={values}
                  onInput={({ currentTarget }) => change({ [name]: { option, values: currentTarget.value } })}
                />
              )}
            </div>
            {option !== "" && <p class="hint muted">{exampleOf(option)}</p>}
            {problems[name] && <p class="problem">{problems[name]}</p>}
          </fieldset>
        );
      })}
    </div>
  );
}
