// An option with its control, its help, why its value is suggested, and what is wrong with it.

import { useState } from "preact/hooks";
import type { OptionDescription } from "../../../../src/studio/protocol.js";
import { formatValue, hintOf, isUsual, labelOf, parseValue } from "./option-texts.js";
import { changed, own, problems, reset, set, settings, suggestions } from "./train-state.js";

/** Element of an option's control, for links to it. */
export const fieldId = (name: string): string => `option-${name}`;

interface Props {
  option: OptionDescription;
}

export function OptionField({ option }: Props) {
  const { name, flag, kind } = option;
  const id = fieldId(name);
  const found = problems.value.get(name) ?? [];
  const isChanged = changed.value.has(name);
  const described = `${id}-hint${found.length > 0 ? ` ${id}-problem` : ""}`;
  const label = (
    <label for={id} title={flag}>
      {labelOf(option)}
    </label>
  );
  return (
    <div class={kind === "list" ? "field wide" : "field"} data-option={name} data-changed={isChanged}>
      <div class="field-head">
        {kind === "switch" ? (
          <span class="tick">
            <Switch option={option} id={id} described={described} />
            {label}
          </span>
        ) : (
          label
        )}
        {isChanged && <span class="changed-mark" role="img" aria-label="Not the default" title="Not the default" />}
        {name in own.value && <ResetButton option={option} />}
      </div>
      {kind === "choice" && <Choice option={option} id={id} described={described} isBad={found.length > 0} />}
      {kind !== "choice" && kind !== "switch" && (
        <TextControl option={option} id={id} described={described} isBad={found.length > 0} />
      )}
      {found.length > 0 && (
        <p class="problem" id={`${id}-problem`}>
          {found.map(({ message }) => message).join(" ")}
        </p>
      )}
      <Reason option={option} />
      <p class="hint" id={`${id}-hint`}>
        {hintOf(option)}
      </p>
    </div>
  );
}

function ResetButton({ option }: Props) {
  const suggested = suggestions.value.get(option.name)?.value;
  const target = suggested ?? option.default;
  const shown = target === undefined || option.kind === "switch" ? "" : ` to ${formatValue(target, ", ")}`;
  return (
    <button
      type="button"
      class="small reset"
      aria-label={`Reset ${labelOf(option)}${shown}`}
      title={`Back to what is ${suggested === undefined ? "usual" : "suggested"}${shown.replace(" to ", ": ")}`}
      onClick={() => reset(option.name)}
    >
      Reset
    </button>
  );
}

/** Why a value is suggested, while it is the one that is set or there is none. */
function Reason({ option }: Props) {
  const suggestion = suggestions.value.get(option.name);
  if (!suggestion) return null;
  const { value, reason } = suggestion;
  const isTaken = value === undefined || JSON.stringify(settings.value[option.name]) === JSON.stringify(value);
  return (
    <p class="reason">
      {isTaken ? reason : `Suggested: ${option.kind === "switch" ? "on" : formatValue(value, ", ")}. ${reason}`}
    </p>
  );
}

interface ControlProps extends Props {
  id: string;
  described: string;
  isBad?: boolean;
}

function Switch({ option, id, described }: ControlProps) {
  return (
    <input
      id={id}
      type="checkbox"
      aria-describedby={described}
      checked={settings.value[option.name] === true}
      onChange={(event) => set(option.name, event.currentTarget.checked)}
    />
  );
}

function Choice({ option, id, described, isBad }: ControlProps) {
  const { name, choices = [], default: usual } = option;
  const value = settings.value[name];
  const isKnown = value === undefined || choices.includes(String(value));
  return (
    <select
      id={id}
      aria-describedby={described}
      aria-invalid={isBad}
      value={String(value ?? usual ?? "")}
      onChange={(event) => set(name, event.currentTarget.value || undefined)}
    >
      {usual === undefined && <option value="">as usual</option>}
      {!isKnown && <option value={String(value)}>{String(value)}</option>}
      {choices.map((choice) => (
        <option key={choice} value={choice}>
          {choice}
        </option>
      ))}
    </select>
  );
}

function TextControl({ option, id, described, isBad }: ControlProps) {
  const { name, kind, default: usual } = option;
  const value = settings.value[name];
  /** What was typed, as long as it stands for the value: 1.0 is not to become 1 under the hand. */
  const [typed, setTyped] = useState<string | undefined>(undefined);
  const isTyped = typed !== undefined && JSON.stringify(parseValue(option, typed)) === JSON.stringify(value);
  const shared = {
    id,
    "aria-describedby": described,
    "aria-invalid": isBad ?? false,
    spellcheck: false,
    autocomplete: "off" as const,
    value: isTyped ? typed : formatValue(value),
    placeholder: formatValue(usual, kind === "list" ? "\n" : ", "),
  };
  const onInput = (event: { currentTarget: HTMLInputElement | HTMLTextAreaElement }) => {
    const text = event.currentTarget.value;
    setTyped(text);
    const parsed = parseValue(option, text);
    // What is the default anyway needs no mark that somebody chose it.
    if (isUsual(option, parsed) && suggestions.value.get(name)?.value === undefined) reset(name);
    else set(name, parsed);
  };
  if (kind === "list") {
    const lines = Math.max(2, formatValue(value ?? usual).split("\n").length);
    return <textarea {...shared} rows={Math.min(lines, 6)} onInput={onInput} />;
  }
  const inputMode = kind === "integer" ? "numeric" : kind === "number" ? "decimal" : "text";
  return <input {...shared} type="text" inputMode={inputMode} onInput={onInput} />;
}
