// Settings out of a picture that is dropped onto the view, or chosen.

import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";
import { readGenerationSettings } from "../../../../src/pipelines/generation-settings/png-settings.js";
import { withSettings } from "./draw-form.js";
import { choices, form } from "./drawings.js";

/** What was said of the last picture. */
const told = signal<{ isBad: boolean; title: string; notes: string[] } | undefined>(undefined);

const MAKERS = { fera: "fera", a1111: "A1111 or its kin", comfyui: "ComfyUI" } as const;
const LARGEST_BYTES = 2 ** 28;

async function take(files: readonly File[]): Promise<void> {
  const [file] = files;
  if (!file) return;
  const refuse = (title: string) => {
    told.value = { isBad: true, title, notes: [] };
  };
  if (file.size > LARGEST_BYTES) return refuse(`${file.name} is larger than any picture that is read here.`);
  try {
    const found = readGenerationSettings(new Uint8Array(await file.arrayBuffer()), file.name);
    if (!found) return refuse(`${file.name} holds no settings: nothing of fera, A1111 or ComfyUI is written in it.`);
    const { form: filled, notes } = withSettings(form.value, found, choices.value);
    form.value = filled;
    told.value = {
      isBad: false,
      title: `The form has the settings of ${file.name}, written by ${MAKERS[found.format]}.`,
      notes,
    };
  } catch (error) {
    refuse(`${(error as Error).message} Only PNG files are read.`);
  }
}

/** Everything that a picture may be dropped onto. */
export function SettingsDrop({ children }: { children: ComponentChildren }) {
  const [isOver, setOver] = useState(false);
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: dropping is a shortcut; the button does the same by keyboard.
    <div
      class={isOver ? "drop over" : "drop"}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={({ currentTarget, relatedTarget }) => {
        if (!currentTarget.contains(relatedTarget as Node | null)) setOver(false);
      }}
      onDrop={(event) => {
        event.preventDefault();
        setOver(false);
        void take([...(event.dataTransfer?.files ?? [])]);
      }}
    >
      {children}
    </div>
  );
}

/** The way by keyboard, and what was said of the picture. */
export function SettingsButton() {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <button type="button" onClick={() => input.current?.click()}>
        From a picture…
      </button>
      <input
        ref={input}
        type="file"
        hidden
        accept="image/png"
        aria-label="Picture to take settings from"
        onChange={({ currentTarget }) => {
          void take([...(currentTarget.files ?? [])]);
          currentTarget.value = "";
        }}
      />
      <div role="status" class={told.value?.isBad ? "told problem" : "told"}>
        {told.value && (
          <>
            <p>{told.value.title}</p>
            {told.value.notes.length > 0 && (
              <ul>
                {told.value.notes.map((note) => (
                  <li key={note}>{note}</li>
                ))}
              </ul>
            )}
          </>
        )}
      </div>
    </>
  );
}
